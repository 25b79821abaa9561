"""Secrets: read from the environment or a file, never from settings, never printed or stored with data."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from medfilip.core.errors import ErrorCode, MedfilipError

PROJECT_KEY = "PROJECT_KEY"
MINIMUM_KEY_LENGTH = 16
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
        content = Path(file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        content = ""
    if not content:
        raise MedfilipError(
            ErrorCode.SECRET_MISSING,
            f"The file named by MEDFILIP_{name}_FILE is empty or cannot be read.",
            fix="Check its path, permissions and content.",
        )
    return content


def project_key() -> bytes:
    """Return the key that pseudonymises identifiers; without one, make one for this user and keep it (mode 0600).

    On a cluster the key comes from ``MEDFILIP_PROJECT_KEY`` or ``MEDFILIP_PROJECT_KEY_FILE``: two machines that each
    made their own would give one patient two pseudonyms.
    """
    given = read_secret(PROJECT_KEY)
    if given is None:
        path = _DEFAULT_KEY_FILE.expanduser()
        if not path.exists():
            _make_key(path)
        given = path.read_text(encoding="utf-8")
    if len(given) < MINIMUM_KEY_LENGTH:
        raise MedfilipError(
            ErrorCode.SECRET_MISSING,
            f"The project key has {len(given)} characters; it needs at least {MINIMUM_KEY_LENGTH}.",
            fix="Set MEDFILIP_PROJECT_KEY or the file to a long random text, for example of 'openssl rand -hex 32'.",
        )
    return given.encode()


def _make_key(path: Path) -> None:
    """Write a new key under another name and link it: whoever reads the file finds all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(secrets.token_hex(32).encode())
    with suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()
