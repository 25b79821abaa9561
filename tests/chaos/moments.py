"""Moments of an extract run at which a fault can strike, told by what has been written so far."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.chaos.arena import Arena
from tests.chaos.driver import Driver

_RUN = "extract-*/*"
_WRITTEN: dict[str, tuple[str, int]] = {
    "start": ("extract-*", 1),
    "opened": (f"{_RUN}/run.json", 1),
    "split": (f"{_RUN}/staging/records/split/*.json", 6),
    "merge": (f"{_RUN}/staging/records/merge/*.json", 8),
    "choose": (f"{_RUN}/staging/*/records/choose/*.json", 8),
    "read": (f"{_RUN}/staging/lexicon/records/read/*.json", 12),
    "collect": (f"{_RUN}/staging/*/records/collect/*.json", 8),
    "cached": ("sentence_findings/*/*/manifest.json", 1),
    "settle": (f"{_RUN}/staging/records/settle/*.json", 8),
    "mentions": (f"{_RUN}/staging/records/mentions/*.json", 6),
    "found": (f"{_RUN}/staging/*/found/*.parquet", 8),  # of engines with a plan of Ray Data
    "published": (f"{_RUN}/manifest.json", 1),
}
"""Name of a moment → what is written then, and how many of it there can be."""


@dataclass(frozen=True)
class Moment:
    """When ``count`` of what a moment writes are there, and ``delay_s`` after."""

    name: str
    count: int
    delay_s: float

    def told(self) -> dict[str, Any]:
        """Return the moment for a result."""
        return asdict(self)

    def come(self, arena: Arena, driver: Driver) -> bool:
        """Wait for the moment; returns whether the driver still ran then."""
        pattern, _ = _WRITTEN[self.name]
        root = Path(arena.root.path)

        def reached() -> bool:
            return sum(1 for _ in root.glob(pattern)) >= self.count

        if not arena.wait_until(reached, driver):
            return False
        time.sleep(self.delay_s)
        return driver.is_running()


_OF_RULES = tuple(name for name in _WRITTEN if name != "found")


def draw_moment(arena: Arena, names: tuple[str, ...] = _OF_RULES) -> Moment:
    """Draw a moment; ``start`` lies anywhere in the first seconds, the others close to what they are named after.

    What a resumed run will write next lies there in part already: then only ``start`` says when to strike.
    """
    rng = arena.rng
    name = "start" if arena.ends else rng.choice(names)
    delay = rng.uniform(0, 12) if name == "start" else rng.choice((0.0, rng.uniform(0, 0.5)))
    return Moment(name, rng.randint(1, _WRITTEN[name][1]), round(delay, 3))
