"""Fingerprints: short, stable names of configurations, data and models."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

LENGTH = 16  # hex digits (64 bits): short enough to read aloud, long enough for millions of runs


def canonical_json(value: object) -> str:
    """Serialise JSON-like data with sorted keys and no white space, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def fingerprint(value: object) -> str:
    """Return the first 16 hex digits of the SHA-256 of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:LENGTH]


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of ``data`` in hex."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a local file in hex, read in chunks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
