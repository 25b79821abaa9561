"""The audit log: who asked what of which model, and what was answered, as hashes in a chain.

Each gateway writes files of its own, one JSON object a line, and only appends. Every line holds the hash of the line
before it, so that a line that is changed, left out or put in breaks the chain from there on; with a key
(``MEDFILIP_AUDIT_KEY``) nobody without it can write a chain anew. A file ends with a closing line when its gateway
ends in order; one without it ended by a crash, or was cut: the hash of its last line, noted elsewhere in time, tells.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import canonical_json
from medfilip.core.secrets import read_secret

AUDIT_KEY = "AUDIT_KEY"
_SUFFIX = ".jsonl"
_START = "0" * 64


class AuditLog:
    """Appends to one file. Call it from one thread at a time.

    Parameters
    ----------
    folder
        Of all files; made if it is not there.
    writer
        Names the file, together with the time.

    Raises
    ------
    MedfilipError
        ``AUDIT_FAILED`` if the file cannot be made.
    """

    def __init__(self, folder: Path, writer: str) -> None:
        self._key, self._previous, self._number, self._length = audit_key(), _START, 0, 0
        at = datetime.now(UTC)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{at:%Y%m%dT%H%M%S.%f}-{writer}{_SUFFIX}"
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o640)
        except OSError as error:
            raise _failed(error) from error
        self._append({"event": "opened", "writer": writer, "keyed": self._key is not None})

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append one request; when this returns, it is on the disk.

        Raises
        ------
        MedfilipError
            ``AUDIT_FAILED``.
        """
        self._append({"event": "request", **entry})

    def close(self) -> None:
        """Append the closing line."""
        if self._file >= 0:
            self._append({"event": "closed"})
            os.close(self._file)
            self._file = -1

    def _append(self, entry: Mapping[str, Any]) -> None:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {**entry, "number": self._number, "at": at, "previous": self._previous}
        line["hash"] = _hash(line, self._key)
        data = (canonical_json(line) + "\n").encode()
        try:
            if os.write(self._file, data) != len(data):
                raise OSError(None, "short write")
            os.fsync(self._file)
        except OSError as error:
            with suppress(OSError):  # half a line would break the chain for good
                os.ftruncate(self._file, self._length)
            raise _failed(error) from error
        self._length += len(data)
        self._previous, self._number = line["hash"], self._number + 1


@dataclass(frozen=True)
class Chain:
    """What was found in one file.

    Attributes
    ----------
    state
        ``sound``; ``open``: sound, without a closing line; ``broken``.
    requests
        Lines about requests, up to the break.
    problem
        Where and how it is broken.
    head
        Hash of the last good line.
    """

    file: Path
    state: Literal["sound", "open", "broken"]
    requests: int
    first_at: str | None
    last_at: str | None
    head: str
    problem: str | None = None


def verify(folder: Path) -> list[Chain]:
    """Check every file of a folder, oldest first.

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND`` if there is none; ``SECRET_MISSING`` if a file was written with a key that is not set.
    """
    files = sorted(folder.glob(f"*{_SUFFIX}"))
    if not files:
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND, f"There is no audit log in {folder}.", fix="Give the folder of 'audit_folder'."
        )
    return [_verified(file, audit_key()) for file in files]


def audit_key() -> bytes | None:
    """Return the key of ``MEDFILIP_AUDIT_KEY`` or ``MEDFILIP_AUDIT_KEY_FILE``, if any."""
    given = read_secret(AUDIT_KEY)
    return given.encode() if given else None


def _verified(file: Path, key: bytes | None) -> Chain:
    previous, requests, times, last = _START, 0, list[str](), ""
    problem, used = None, None
    for number, line in enumerate(_lines(file)):
        if number == 0:
            keyed = isinstance(line, dict) and line.get("keyed") is True
            if keyed and key is None:
                raise MedfilipError(
                    ErrorCode.SECRET_MISSING,
                    f"The audit log {file.name} was written with a key, and MEDFILIP_{AUDIT_KEY} is not set.",
                    fix="Set it as it was for the endpoint.",
                )
            used = key if keyed else None
        try:
            problem = _problem(line, number, previous, last, used)
        except ValueError:  # letters that no writer of ours would have written
            problem = f"line {number + 1} was changed"
        if problem is not None:
            break
        assert isinstance(line, dict)
        previous, last = line["hash"], line["event"]
        requests += last == "request"
        times.append(line["at"])
    if problem is None and not last:
        problem = "it is empty"
    if problem is None and key is not None and used is None:
        problem = "it was written without the key: anybody could have written it"
    state: Literal["sound", "open", "broken"] = "broken" if problem else "sound" if last == "closed" else "open"
    return Chain(file, state, requests, times[0] if times else None, times[-1] if times else None, previous, problem)


def _problem(line: object, number: int, previous: str, last: str, key: bytes | None) -> str | None:
    where = f"line {number + 1}"
    if not isinstance(line, dict) or not all(isinstance(line.get(name), str) for name in ("hash", "event", "at")):
        return f"{where} is no entry"
    if line.get("number") != number or line.get("previous") != previous:
        return f"{where} does not follow the line before it: lines were left out or put in"
    if not hmac.compare_digest(line["hash"].encode(), _hash(line, key).encode()):
        return f"{where} was changed"
    if last == "closed" or (line["event"] == "opened") != (number == 0):
        return f"{where} stands where it cannot"
    return None


def _lines(file: Path) -> Iterator[object]:
    with file.open("rb") as stream:
        for data in stream:
            try:
                yield json.loads(data) if data.endswith(b"\n") else None
            except ValueError:
                yield None


def _hash(line: Mapping[str, Any], key: bytes | None) -> str:
    content = canonical_json({name: value for name, value in line.items() if name != "hash"}).encode()
    return hmac.digest(key, content, "sha256").hex() if key else hashlib.sha256(content).hexdigest()


def _failed(error: OSError) -> MedfilipError:
    return MedfilipError(
        ErrorCode.AUDIT_FAILED,
        f"The audit log cannot be written ({error.strerror}), and nothing is answered without it.",
        fix="Make room on the disk of 'audit_folder' and check its permissions.",
    )
