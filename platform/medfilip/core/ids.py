"""Identifiers: 64-bit content hashes, keyed pseudonyms and run ids."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_SEPARATOR = b"\x1f"  # ASCII unit separator: ("ab", "c") and ("a", "bc") must not collide


def hash64(*parts: str) -> int:
    """Hash strings to a signed 64-bit integer that is the same on every machine and Python version.

    Signed, because Arrow and Parquet order and compress ``int64`` best and every engine reads it.
    """
    digest = hashlib.blake2b(_SEPARATOR.join(part.encode() for part in parts), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def hash64_each(*columns: Iterable[str]) -> npt.NDArray[np.int64]:
    """Hash each row of columns of strings as `hash64` does."""
    import numpy as np

    separator = _SEPARATOR.decode()
    digests = (
        hashlib.blake2b(separator.join(row).encode(), digest_size=8).digest() for row in zip(*columns, strict=True)
    )
    return np.frombuffer(b"".join(digests), ">i8").astype(np.int64)


def pseudonym(key: bytes, kind: str, value: str) -> str:
    """Replace an identifier by a keyed hash (HMAC-SHA-256, 80 bits in hex), stable for one project key.

    Without the key the original cannot be found by hashing guesses, unlike a plain hash of a patient number.
    ``kind`` ("patient", "study", …) keeps equal strings of different kinds apart.
    """
    message = _SEPARATOR.join((kind.encode(), value.encode()))
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:20]


def keyed_fraction(key: bytes, value: str) -> float:
    """Map an identifier to [0, 1) by a keyed hash: the draw that decides a split."""
    digest = hmac.new(key, b"split" + _SEPARATOR + value.encode(), hashlib.sha256).digest()
    return int.from_bytes(digest[:7], "big") / (1 << 56)


def new_run_id(now: datetime | None = None) -> str:
    """Return a run id that sorts by start time: ``20260102T030405-9f3a1c``."""
    moment = now or datetime.now(UTC)
    return f"{moment:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
