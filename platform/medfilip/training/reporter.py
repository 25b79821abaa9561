"""A reporter for a run without Ray: one process or torchrun, with checkpoints on a local disk."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from medfilip.model.checkpoint import HASHES


class LocalReporter:
    """Finds the latest complete checkpoint of a folder and keeps the last few.

    Parameters
    ----------
    workdir
        The folder `medfilip.training.loop.fit` writes to.
    keep
        Complete checkpoints that stay; older ones are deleted.
    show
        Called with the metrics of every report, for progress on a console.
    """

    def __init__(
        self, workdir: Path, *, keep: int = 2, show: Callable[[Mapping[str, float]], None] | None = None
    ) -> None:
        self._workdir, self._keep, self._show = workdir, keep, show
        self.history: list[dict[str, float]] = []

    def report(self, metrics: Mapping[str, float], checkpoint: Path | None) -> None:
        """Remember the metrics; after a new checkpoint delete the oldest ones."""
        self.history.append(dict(metrics))
        if self._show is not None:
            self._show(metrics)
        if checkpoint is not None:
            for folder in self._complete()[: -self._keep]:
                shutil.rmtree(folder)

    def latest_checkpoint(self) -> Path | None:
        """Return the complete checkpoint with the most steps; a folder without hashes was never finished."""
        complete = self._complete()
        return complete[-1] if complete else None

    def _complete(self) -> list[Path]:
        return sorted(path.parent for path in self._workdir.glob(f"step-*/{HASHES}"))
