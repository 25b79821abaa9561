"""API keys: only their hashes travel, and comparing one takes the same time whatever it is."""

from __future__ import annotations

import hashlib
import hmac
import logging
import math
import os
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.secrets import read_secret

SECRET_NAME = "API_KEYS"  # noqa: S105 - the name of a secret, not one
MIN_CHARACTERS = 20
RELOAD_S = 2.0
"""How often the file of keys is looked at."""
STALE_S = 300.0
"""How long keys stay accepted while their file cannot be read."""
_UNREAD = (-1, -1)
_logger = logging.getLogger("medfilip.serve")
_HASH = re.compile(r"[0-9a-f]{64}")


def new_key() -> str:
    """Make an API key: 192 random bits."""
    return f"mf_{secrets.token_urlsafe(24)}"


def hash_key(key: str) -> str:
    """Return the SHA-256 of a key in hex.

    A plain hash is enough because keys are long and random, unlike passwords; short ones are refused.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def configured_hashes() -> tuple[str, ...]:
    """Return the hashes of the keys in ``MEDFILIP_API_KEYS`` or the file ``MEDFILIP_API_KEYS_FILE``.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` if a key has fewer than 20 characters.
    """
    keys = [key.strip() for key in re.split(r"[,\n]", read_secret(SECRET_NAME) or "") if key.strip()]
    if any(len(key) < MIN_CHARACTERS for key in keys):
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"A key in MEDFILIP_{SECRET_NAME} has fewer than {MIN_CHARACTERS} characters.",
            fix="Make keys with: python -c 'import secrets; print(secrets.token_urlsafe(24))'.",
        )
    return tuple(hash_key(key) for key in keys)


@dataclass(frozen=True)
class Caller:
    """Who sent a request.

    Attributes
    ----------
    name
        Of the key in the file of keys, or the first digits of its hash; ``anonymous`` without one.
    requests_per_minute, concurrent_requests
        Limits of its own; ``None`` for those of the endpoint.
    """

    name: str
    requests_per_minute: int | None = None
    concurrent_requests: int | None = None


ANONYMOUS = Caller("anonymous")


class KeyRing:
    """The keys that are accepted, as hashes.

    Parameters
    ----------
    hashes
        SHA-256 in hex; none at all, and no file, means that everybody is accepted.
    file
        Further keys, read again when it changes.
    """

    def __init__(self, hashes: Iterable[str], file: Path | None = None) -> None:
        hashes = tuple(hashes)
        if not all(_HASH.fullmatch(value) for value in hashes):
            raise MedfilipError(
                ErrorCode.CONFIG_INVALID,
                "An entry of 'api_key_hashes' is no SHA-256 in lower-case hex.",
                fix="Make it with: printf %s KEY | sha256sum.",
            )
        self._given = {value: Caller(f"key-{value[:8]}") for value in hashes}
        self._file, self._read, self._state = file, dict[str, Caller](), _UNREAD
        self._looked = self._known_until = -math.inf

    def check(self, authorization: str | None, x_api_key: str | None) -> Caller:
        """Accept a request by its ``Authorization: Bearer`` or ``X-API-Key`` header.

        Raises
        ------
        MedfilipError
            ``UNAUTHENTICATED`` without a key, ``FORBIDDEN`` with a wrong one.
        """
        if not self._given and self._file is None:
            return ANONYMOUS
        scheme, _, token = (authorization or "").partition(" ")
        key = x_api_key or (token.strip() if scheme.lower() == "bearer" else "")
        if not key:
            raise MedfilipError(
                ErrorCode.UNAUTHENTICATED,
                "The request has no API key.",
                fix="Send it as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.",
            )
        given = hash_key(key)
        # Every hash is compared, so that the time says neither whether nor which one matched.
        matched = [caller for known, caller in self._accepted().items() if hmac.compare_digest(given, known)]
        if not matched:
            raise MedfilipError(
                ErrorCode.FORBIDDEN, "The API key is not known here.", fix="Ask the operator of the endpoint for one."
            )
        return matched[0]

    def _accepted(self) -> dict[str, Caller]:
        if self._file is not None and time.monotonic() >= self._looked + RELOAD_S:
            self._looked = time.monotonic()
            self._reload(self._file)
        return {**self._given, **self._read}

    def _reload(self, file: Path) -> None:
        from serve.key_file import read_key_file

        try:
            found = file.stat()
            state = (found.st_mtime_ns, found.st_ino)
            if state == self._state and os.access(file, os.R_OK):
                self._known_until = time.monotonic() + STALE_S
                return
            entries = read_key_file(file).active
        except (OSError, MedfilipError) as error:
            # What was accepted a moment ago stays so for a while: a disk that hiccups must not lock a hospital out. Not
            # for ever: a key may have been revoked since.
            _logger.error("the file of API keys cannot be read (%s)", type(error).__name__)
            if time.monotonic() >= self._known_until:
                self._read = {}
            return
        self._state, self._known_until = state, time.monotonic() + STALE_S
        self._read = {
            entry.sha256: Caller(entry.name, entry.requests_per_minute, entry.concurrent_requests) for entry in entries
        }


def accepted_hashes(given: Iterable[str], *, allow_anonymous: bool, file: Path | None = None) -> tuple[str, ...]:
    """Return the hashes of all keys of an endpoint, which has some unless it is open on purpose or has a file of them.

    Raises
    ------
    MedfilipError
        ``SECRET_MISSING`` if there is no key and anonymous use is not allowed.
    """
    if allow_anonymous:
        return ()
    hashes = tuple(dict.fromkeys((*given, *configured_hashes())))
    KeyRing(hashes)
    if file is not None:
        from serve.key_file import read_key_file

        read_key_file(file)
    elif not hashes:
        raise MedfilipError(
            ErrorCode.SECRET_MISSING,
            f"The endpoint has no API key: neither MEDFILIP_{SECRET_NAME}, keys_file nor api_key_hashes is set.",
            fix=f"Set MEDFILIP_{SECRET_NAME} or keys_file (see 'medfilip keys add'), or allow_anonymous=true if "
            "everybody may use it.",
        )
    return hashes
