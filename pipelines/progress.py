"""Progress of a long stage: one line that moves on a terminal, a line now and then anywhere else.

The driver counts what has been committed; nothing is asked of the workers, and no text of a report is near.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.text import Text

_EVERY_S_TERMINAL, _EVERY_S_LOG = 1.0, 30.0


def duration(seconds: float) -> str:
    """Write a duration the way people say it: ``45 s``, ``12 min``, ``3.4 h``."""
    if seconds < 90:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass
class ProgressLine:
    """What is known of a stage's progress.

    Attributes
    ----------
    name, unit
        What is being done, and of what.
    total
        How many there are.
    started
        Monotonic time at which ``first`` were done already: work of an earlier attempt has no speed.
    """

    name: str
    unit: str
    total: int
    first: int = 0
    started: float = field(default_factory=time.monotonic)

    def text(self, done: int, now: float | None = None) -> str:
        """Return the line for ``done`` of ``total``."""
        elapsed = (time.monotonic() if now is None else now) - self.started
        share = f"{100 * done / self.total:3.0f} %" if self.total else ""
        line = f"{self.name:<10} {done:>11,} of {self.total:,} {self.unit}  {share}"
        fresh = done - self.first
        if fresh > 0 and elapsed > 0 and done < self.total:
            rate = fresh / elapsed
            line += f"  {rate:,.0f}/s" if rate >= 10 else f"  {rate:.1f}/s"
            line += f"  {duration((self.total - done) / rate)} left"
        return line


class ProgressPrinter:
    """Prints progress lines of the stages of one job."""

    def __init__(self, console: Console | None = None, *, every_s: float = _EVERY_S_LOG) -> None:
        # Standard error: what a job prints as its result stays clean for pipes.
        self._console = console or Console(stderr=True, highlight=False)
        self._every_s = every_s

    @contextmanager
    def stage(self, name: str, unit: str, total: int, count: Callable[[], int]) -> Iterator[None]:
        """Show the progress of what runs inside; ``count`` returns how many are done and is called now and then."""
        line = ProgressLine(name, unit, total, first=_counted(count, 0))
        stop = threading.Event()
        terminal = self._console.is_terminal and sys.stderr.isatty()
        show = self._live if terminal else self._lines
        thread = threading.Thread(target=show, args=(line, count, stop), name="medfilip-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _live(self, line: ProgressLine, count: Callable[[], int], stop: threading.Event) -> None:
        with Live(console=self._console, transient=True, auto_refresh=False) as live:
            done = line.first
            while not stop.wait(_EVERY_S_TERMINAL):
                done = _counted(count, done)
                live.update(Text(line.text(done), no_wrap=True, overflow="ellipsis"), refresh=True)

    def _lines(self, line: ProgressLine, count: Callable[[], int], stop: threading.Event) -> None:
        done = line.first
        while not stop.wait(self._every_s):
            done = _counted(count, done)
            self._console.print(line.text(done), soft_wrap=True)


def _counted(count: Callable[[], int], before: int) -> int:
    # Progress is a courtesy: a listing that fails must not end a job.
    with suppress(Exception):
        return count()
    return before
