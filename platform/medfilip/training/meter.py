"""What a run measures of itself without holding it up: losses, speed, time spent waiting for data."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.model.distributed import World
from medfilip.training.settings import TrainSettings

LOG_STEPS = 10
"""Steps between two entries of the event log."""


class Meter:
    """Collects losses and norms where they are computed, and reads them a while later.

    Reading a number makes the host wait until the device has computed it, so numbers are read when entries of the log
    or reports are due; a loss that is no number stops the run there, before anything is saved.
    """

    def __init__(self, world: World, settings: TrainSettings, steps: int) -> None:
        self._world, self._settings, self._steps = world, settings, steps
        self._pending: list[tuple[int, Tensor, Tensor]] = []
        self._losses: list[float] = []
        self._norm = 0.0
        self._begun = self._mark = time.perf_counter()
        self._units = self._marked_units = 0
        self._waited = self._marked_wait = 0.0

    def take(self, step: int, loss: Tensor, norm: Tensor, units: int, waited: float) -> None:
        """Note a step; ``waited`` are the seconds waited for data since the beginning."""
        self._pending.append((step, loss, norm))
        self._units += units
        self._waited = waited
        if len(self._pending) >= LOG_STEPS:
            self.check()

    def check(self) -> None:
        """Read what is pending.

        Raises
        ------
        MedfilipError
            ``TRAINING_DIVERGED`` if a loss or norm is not a number.
        """
        if not self._pending:
            return
        numbers = torch.stack([torch.stack([loss, norm]) for _, loss, norm in self._pending]).tolist()
        for (step, _, _), (loss, norm) in zip(self._pending, numbers, strict=True):
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise MedfilipError(
                    ErrorCode.TRAINING_DIVERGED,
                    f"The loss or its gradient is not a number at step {step} of {self._steps}.",
                    fix=f"Lower learning_rate (now {self._settings.learning_rate:g}) or set precision to fp32.",
                )
            self._losses.append(loss)
            self._norm = norm
        self._pending.clear()

    def losses(self) -> list[float]:
        """Return the losses since the last call."""
        self.check()
        losses, self._losses = self._losses, []
        return losses

    def recent(self) -> dict[str, float]:
        """Return the last loss and norm, and the speed since the last call."""
        self.check()
        now = time.perf_counter()
        seconds = max(now - self._mark, 1e-9)
        found = {
            "gradient_norm": self._norm,
            "studies_per_second": (self._units - self._marked_units) * self._world.size / seconds,
            "waiting_share": (self._waited - self._marked_wait) / seconds,
        }
        if self._losses:
            found["loss"] = self._losses[-1]
        self._mark, self._marked_units, self._marked_wait = now, self._units, self._waited
        return found

    def speed(self) -> dict[str, float]:
        """Return the speed of the whole run so far; empty before the first step."""
        if not self._units:
            return {}
        seconds = time.perf_counter() - self._begun
        return {
            "run_seconds": seconds,
            "run_studies_per_second": self._units * self._world.size / seconds,
            "run_waiting_share": self._waited / seconds,
        }
