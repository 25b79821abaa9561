"""A lease: one driver at a time on one run, on a disk or in a bucket.

Each taking of the lease creates the next generation's file with a create-only write, which both file systems and S3
make atomic; the highest generation holds. A holder renews by rewriting its own file. A dead holder's lease is taken
over once it has expired, or at once if its process is seen to be gone on this host.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from dataclasses import asdict, dataclass

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.storage.location import Location

TIME_TO_LIVE_S = 60.0


@dataclass(frozen=True)
class _Holder:
    owner: str
    host: str
    pid: int
    expires_at: float

    def is_gone(self) -> bool:
        if time.time() > self.expires_at:
            return True
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


class Lease:
    """Exclusive use of a run folder, renewed in the background until released."""

    def __init__(self, folder: Location, generation: int) -> None:
        self._folder = folder
        self._generation = generation
        self._owner = secrets.token_hex(8)
        self._lost = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="medfilip-lease", daemon=True)

    @classmethod
    def acquire(cls, folder: Location, *, wait_s: float = 0.0) -> Lease:
        """Take the lease of ``folder``, waiting at most ``wait_s`` seconds for it.

        Raises
        ------
        MedfilipError
            ``run_locked``, saying who holds it and for how long.
        """
        deadline = time.monotonic() + wait_s
        while True:
            try:
                return cls._take(folder)
            except MedfilipError as error:
                if error.code is not ErrorCode.RUN_LOCKED or time.monotonic() >= deadline:
                    raise
                time.sleep(0.2)

    @classmethod
    def _take(cls, folder: Location) -> Lease:
        generations = _generations(folder)
        if generations:
            holder = _read(folder / _name(generations[-1]))
            if holder is not None and not holder.is_gone():
                raise _locked(folder, holder)
        lease = cls(folder, (generations[-1] + 1) if generations else 1)
        try:
            (folder / _name(lease._generation)).create(lease._content())
        except MedfilipError as error:
            if error.code is ErrorCode.PUBLISH_RACE_LOST:
                raise _locked(folder, None) from error
            raise
        for old in generations[:-1]:
            (folder / _name(old)).delete()
        lease._thread.start()
        return lease

    def check(self) -> None:
        """Raise `ErrorCode.RUN_LOCKED` if another driver has taken the run over in the meantime."""
        if self._lost or _generations(self._folder)[-1] != self._generation:
            raise _locked(self._folder, None)

    def release(self) -> None:
        """Give the lease back; a following driver need not wait."""
        self._stop.set()
        self._thread.join()
        expired = _Holder(self._owner, socket.gethostname(), os.getpid(), 0.0)
        (self._folder / _name(self._generation)).write_bytes(json.dumps(asdict(expired)).encode())

    def _content(self) -> bytes:
        holder = _Holder(self._owner, socket.gethostname(), os.getpid(), time.time() + TIME_TO_LIVE_S)
        return json.dumps(asdict(holder)).encode()

    def _renew(self) -> None:
        renewed = time.monotonic()
        while not self._stop.wait(TIME_TO_LIVE_S / 4):
            try:
                (self._folder / _name(self._generation)).write_bytes(self._content())
                renewed = time.monotonic()
            except Exception:
                # Storage may fail for a moment; only a lease that could not be renewed in time is lost.
                self._lost = time.monotonic() - renewed > TIME_TO_LIVE_S


def _name(generation: int) -> str:
    return f"lease-{generation:06d}.json"


def _generations(folder: Location) -> list[int]:
    names = (child.name for child in folder.children())
    return sorted(int(name[6:-5]) for name in names if name.startswith("lease-") and name.endswith(".json"))


def _read(location: Location) -> _Holder | None:
    try:
        return _Holder(**json.loads(location.read_bytes()))
    except (ValueError, TypeError):
        return None


def _locked(folder: Location, holder: _Holder | None) -> MedfilipError:
    who = f"process {holder.pid} on host {holder.host}" if holder else "another process"
    wait = max(0.0, holder.expires_at - time.time()) if holder else TIME_TO_LIVE_S
    return MedfilipError(
        ErrorCode.RUN_LOCKED,
        f"The run {folder.name} is in use by {who}.",
        fix=f"Wait for it, or if it is gone try again in {wait:.0f} s, or start another run with --new-run.",
    )
