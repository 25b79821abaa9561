"""The memory of other processes, at its highest: read from Linux, which also forgets it on demand (proc(5))."""

from __future__ import annotations

import re
from pathlib import Path

import psutil

MEGABYTE = 2**20


class PeakMemory:
    """The processes below this one, and how far each grows beyond what it held when this began."""

    def __init__(self) -> None:
        self._before: dict[int, int] = {}
        for process in psutil.Process().children(recursive=True):
            try:
                Path(f"/proc/{process.pid}/clear_refs").write_text("5", encoding="ascii")
                self._before[process.pid] = _highest(process.pid)
            except (OSError, psutil.Error):
                continue  # it has ended

    def growth(self) -> dict[str, int]:
        """Return the bytes by which the highest resident memory of each process has risen, by its name and number."""
        grown = {}
        for process in psutil.Process().children(recursive=True):
            try:
                name = f"{process.name()} {process.pid}"
                grown[name] = _highest(process.pid) - self._before.get(process.pid, 0)
            except (OSError, psutil.Error):
                continue
        return grown


def _highest(pid: int) -> int:
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="ascii"), re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0
