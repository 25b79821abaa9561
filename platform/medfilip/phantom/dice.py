"""Fast draws: a report needs a hundred small decisions, and a call of numpy for each would be most of its cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

_T = TypeVar("_T")
_BLOCK = 64


class Dice:
    """Draws from a generator in blocks; the same generator gives the same draws."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._waiting: list[float] = []

    def throw(self) -> float:
        """Return a number in [0, 1)."""
        if not self._waiting:
            self._waiting = self._rng.random(_BLOCK).tolist()
        return self._waiting.pop()

    def chance(self, probability: float) -> bool:
        """Return true with a probability."""
        return self.throw() < probability

    def number(self, low: int, high: int) -> int:
        """Return an integer in [low, high)."""
        return low + int(self.throw() * (high - low))

    def pick(self, options: Sequence[_T]) -> _T:
        """Return one of the options, each as likely."""
        return options[int(self.throw() * len(options))]

    def favour(self, options: Sequence[_T]) -> _T:
        """Return one of the options, the n-th about 1/n as likely as the first: how people choose words (Zipf)."""
        return options[int((len(options) + 1) ** self.throw()) - 1]

    def some(self, options: Sequence[_T], count: int) -> list[_T]:
        """Return different options, the first ones preferred, in the order in which they came."""
        found: list[_T] = []
        while len(found) < min(count, len(options)):
            option = self.favour(options)
            if option in found:
                option = self.pick(options)
            if option not in found:
                found.append(option)
        return found
