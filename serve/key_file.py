"""The file of API keys that ``medfilip keys`` keeps: names, hashes and limits, never a key itself.

An endpoint reads it again while it runs, so that a key is accepted or refused within seconds of the command.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medfilip.core.errors import ErrorCode, MedfilipError
from serve.keys import hash_key, new_key

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class KeyEntry(BaseModel):
    """One key.

    Attributes
    ----------
    name
        Who uses it; what the audit log and the metrics say.
    sha256
        Of the key, in hex.
    requests_per_minute, concurrent_requests
        Limits of its own; ``None`` for those of the endpoint.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=_NAME.pattern)
    sha256: Hash
    created: datetime
    revoked: datetime | None = None
    requests_per_minute: int | None = Field(None, ge=1)
    concurrent_requests: int | None = Field(None, ge=1)


class KeyFile(BaseModel):
    """All keys, revoked ones too."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = 1
    keys: tuple[KeyEntry, ...] = ()

    @property
    def active(self) -> tuple[KeyEntry, ...]:
        """The keys that are accepted."""
        return tuple(entry for entry in self.keys if entry.revoked is None)


def read_key_file(path: Path) -> KeyFile:
    """Read a file of keys.

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND`` if it is not there, ``CONFIG_INVALID`` if it is not such a file.
    """
    try:
        return KeyFile.model_validate_json(path.read_bytes())
    except OSError as error:
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND,
            f"The file of API keys {path} cannot be read ({error.strerror}).",
            fix=f"Make it with: medfilip keys add NAME --file {path}.",
        ) from error
    except ValidationError as error:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"The file {path} is no file of API keys ({error.error_count()} places do not fit).",
            fix="Write it with 'medfilip keys' only, or take it back from a backup.",
        ) from None


def add_key(
    path: Path, name: str, *, requests_per_minute: int | None = None, concurrent_requests: int | None = None
) -> str:
    """Make a key, keep its hash, and return it: it cannot be shown again.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` if the name does not fit or an active key has it.
    """
    if not _NAME.fullmatch(name):
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            "The name of a key must be 1 to 64 letters, digits, '.', '_' or '-', and begin with a letter or digit.",
            fix="Name the system or the person that will use it, for example: reading-room-2.",
        )
    key = new_key()
    entry = KeyEntry(
        name=name, sha256=hash_key(key), created=_now(), requests_per_minute=requests_per_minute,
        concurrent_requests=concurrent_requests,
    )  # fmt: skip

    def change(known: KeyFile) -> KeyFile:
        if any(other.name == name for other in known.active):
            raise MedfilipError(
                ErrorCode.CONFIG_INVALID,
                f"There is an active key named '{name}' already.",
                fix=f"Revoke it first with 'medfilip keys revoke {name}', or take another name.",
            )
        return known.model_copy(update={"keys": (*known.keys, entry)})

    _changed(path, change)
    return key


def revoke_key(path: Path, name: str) -> None:
    """Refuse a key from now on; its entry stays, with the time.

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND`` if there is no active key of that name.
    """

    def change(known: KeyFile) -> KeyFile:
        if not any(entry.name == name for entry in known.active):
            raise MedfilipError(
                ErrorCode.INPUT_NOT_FOUND,
                f"There is no active key named '{name}' in {path}.",
                fix="See 'medfilip keys list'.",
            )
        revoked = {"revoked": _now()}
        keys = tuple(
            entry.model_copy(update=revoked) if entry.name == name and entry.revoked is None else entry
            for entry in known.keys
        )
        return known.model_copy(update={"keys": keys})

    read_key_file(path)
    _changed(path, change)


def _take_over(path: Path, staging: Path) -> None:
    """Give the new file mode and owner of the old one: an endpoint of another user must be able to go on reading it."""
    with suppress(OSError):
        old = path.stat()
        staging.chmod(old.st_mode & 0o777)
        os.chown(staging, old.st_uid, old.st_gid)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _changed(path: Path, change: Callable[[KeyFile], KeyFile]) -> None:
    """Change the file under a lock; whoever reads it finds the old or the new one whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        changed = change(read_key_file(path) if path.exists() else KeyFile())
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as staging:
            staging.write(changed.model_dump_json(indent=2) + "\n")
            staging.flush()
            os.fsync(staging.fileno())
        _take_over(path, Path(staging.name))
        Path(staging.name).replace(path)
