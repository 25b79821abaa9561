"""Who is told of a training run's progress, and a reporter for runs without Ray: one process or torchrun."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from medfilip.model.checkpoint import HASHES
from medfilip.training.logs import EventLog, ManyLogs, NumberLog

Numbers = Mapping[str, float]


class Reporter(Protocol):
    """Where metrics and checkpoints go."""

    def log(self, step: int, metrics: Numbers) -> None:
        """Take the numbers of some steps between reports; only rank 0 has them."""
        ...

    def report(self, metrics: Numbers, checkpoint: Path | None) -> None:
        """Take metrics and a checkpoint folder; every process calls it, only rank 0 has a folder."""
        ...

    def latest_checkpoint(self) -> Path | None:
        """Return the folder to resume from, the same on every process; ``None`` starts anew."""
        ...


class LocalReporter:
    """Finds the latest complete checkpoint of a folder, keeps the last few, and writes TensorBoard events.

    Parameters
    ----------
    workdir
        The folder `medfilip.training.loop.fit` writes to; events go to ``events`` below it.
    keep
        Complete checkpoints that stay; older ones are deleted.
    show
        Called with the metrics of every report, for progress on a console.
    validate
        Called with every new checkpoint, while training waits; what it returns counts among the report's metrics.
    log
        Takes the numbers too, beside the events.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        keep: int = 2,
        show: Callable[[Numbers], None] | None = None,
        validate: Callable[[Path], Numbers] | None = None,
        log: NumberLog | None = None,
    ) -> None:
        self._workdir, self._keep, self._show, self._validate = workdir, keep, show, validate
        self._log = ManyLogs([EventLog(workdir / "events"), *([log] if log is not None else [])])
        self.history: list[dict[str, float]] = []

    def log(self, step: int, metrics: Numbers) -> None:
        """Write the numbers of some steps."""
        self._log.write(step, metrics, "step")

    def report(self, metrics: Numbers, checkpoint: Path | None) -> None:
        """Remember the metrics; after a new checkpoint delete the oldest ones."""
        found = dict(metrics)
        if checkpoint is not None:
            step = int(metrics.get("step", 0))
            self._log.write(step, metrics, "report")
            if self._validate is not None:
                validated = self._validate(checkpoint)
                self._log.write(step, validated, "validation")
                found |= validated
            self._log.flush()
            for folder in self._complete()[: -self._keep]:
                shutil.rmtree(folder)
        self.history.append(found)
        if self._show is not None:
            self._show(found)

    def latest_checkpoint(self) -> Path | None:
        """Return the complete checkpoint with the most steps; a folder without hashes was never finished."""
        complete = self._complete()
        return complete[-1] if complete else None

    def close(self) -> None:
        """End the logs."""
        self._log.close()

    def _complete(self) -> list[Path]:
        return sorted(path.parent for path in self._workdir.glob(f"step-*/{HASHES}"))
