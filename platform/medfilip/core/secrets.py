"""Secrets: read from the environment or a file, never from settings, never printed or stored with data."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from medfilip.core.errors import ErrorCode, MedfilipError

PROJECT_KEY = "PROJECT_KEY"
_DEFAULT_KEY_FILE = Path("~/.config/medfilip/project.key")


def read_secret(name: str) -> str | None:
    """Return the secret ``MEDFILIP_<name>``, or the content of the file ``MEDFILIP_<name>_FILE``, or ``None``."""
    value = os.environ.get(f"MEDFILIP_{name}")
    if value:
        return value
    file = os.environ.get(f"MEDFILIP_{name}_FILE")
    if not file:
        return None
    try:
        return Path(file).expanduser().read_text(encoding="utf-8").strip()
    except OSError as error:
        raise MedfilipError(
            ErrorCode.SECRET_MISSING,
            f"The file named by MEDFILIP_{name}_FILE cannot be read.",
            fix="Check its path and permissions.",
        ) from error


def project_key() -> bytes:
    """Return the key that pseudonymises identifiers; without one, make one for this user and keep it (mode 0600).

    On a cluster the key comes from ``MEDFILIP_PROJECT_KEY`` or ``MEDFILIP_PROJECT_KEY_FILE``: two machines that each
    made their own would give one patient two pseudonyms.
    """
    given = read_secret(PROJECT_KEY)
    if given is not None:
        return given.encode()
    path = _DEFAULT_KEY_FILE.expanduser()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return path.read_bytes()
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secrets.token_hex(32).encode())
    return path.read_bytes()
