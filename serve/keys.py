"""API keys: only their hashes travel, and comparing one takes the same time whatever it is."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.secrets import read_secret

SECRET_NAME = "API_KEYS"  # noqa: S105 - the name of a secret, not one
MIN_CHARACTERS = 20
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


class KeyRing:
    """The keys that are accepted, as hashes.

    Parameters
    ----------
    hashes
        SHA-256 in hex; none at all means that everybody is accepted.
    """

    def __init__(self, hashes: Iterable[str]) -> None:
        self._hashes = tuple(hashes)
        if not all(_HASH.fullmatch(value) for value in self._hashes):
            raise MedfilipError(
                ErrorCode.CONFIG_INVALID,
                "An entry of 'api_key_hashes' is no SHA-256 in lower-case hex.",
                fix="Make it with: printf %s KEY | sha256sum.",
            )

    def check(self, authorization: str | None, x_api_key: str | None) -> None:
        """Accept a request by its ``Authorization: Bearer`` or ``X-API-Key`` header.

        Raises
        ------
        MedfilipError
            ``UNAUTHENTICATED`` without a key, ``FORBIDDEN`` with a wrong one.
        """
        if not self._hashes:
            return
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
        if not sum(hmac.compare_digest(given, known) for known in self._hashes):
            raise MedfilipError(
                ErrorCode.FORBIDDEN, "The API key is not known here.", fix="Ask the operator of the endpoint for one."
            )


def accepted_hashes(given: Iterable[str], *, allow_anonymous: bool) -> tuple[str, ...]:
    """Return the hashes of all keys of an endpoint, which has some unless it is open on purpose.

    Raises
    ------
    MedfilipError
        ``SECRET_MISSING`` if there is no key and anonymous use is not allowed.
    """
    if allow_anonymous:
        return ()
    hashes = tuple(dict.fromkeys((*given, *configured_hashes())))
    KeyRing(hashes)
    if not hashes:
        raise MedfilipError(
            ErrorCode.SECRET_MISSING,
            f"The endpoint has no API key: neither MEDFILIP_{SECRET_NAME} nor 'api_key_hashes' is set.",
            fix=f"Set MEDFILIP_{SECRET_NAME}, or allow_anonymous=true if everybody may use it.",
        )
    return hashes
