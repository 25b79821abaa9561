"""One training run on Ray Train: placed on workers, fed, told about, resumed, validated beside.

The training itself is `medfilip.training`, which knows nothing of Ray.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.model.distributed import World
from medfilip.storage.location import Location
from medfilip.training.logs import EventLog, ManyLogs, MlflowLog, MlflowSettings, NumberLog
from medfilip.training.loop import fit
from medfilip.training.settings import TrainSettings
from medfilip.training.sources import load_pairs, load_split
from medfilip.training.validation import CATEGORIES, zero_shot_metrics
from pipelines.ray_group import HIDDEN_GPUS, GroupReporter, Placement, run_group, take_device, told
from pipelines.runtime import Progress, no_progress, task_error

if TYPE_CHECKING:
    import ray.train


class TrainTask(BaseModel):
    """What workers and validation tasks are told; plain data, because Ray Train keeps it as JSON.

    Attributes
    ----------
    run
        Id of the run: Ray Train and MLflow find what they have of it by this name.
    logs
        Where the events go.
    progress
        File that tells how many epochs are done.
    validate_every
        Reports from one validation to the next; 0 for none. The last checkpoint is always validated otherwise.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    pairs: str
    images: str
    train: TrainSettings
    synthetic: bool
    logs: str
    progress: str
    validate_every: int
    mlflow: MlflowSettings

    def epochs_done(self) -> int:
        """Return the whole epochs of which a checkpoint was reported."""
        file = Location.parse(self.progress)
        return int(json.loads(file.read_bytes())["epoch"]) if file.exists() else 0

    def log(self, name: str, workdir: Path) -> NumberLog:
        """Open the logs of a part of the run: its event files lie in a folder of this name."""
        events = EventLog(workdir / "events" / name, Location.parse(self.logs) / name)
        if self.mlflow.tracking_uri is None:
            return events
        return ManyLogs([events, MlflowLog(self.mlflow, self.run, self.train.model_dump(mode="json"))])


@dataclass(frozen=True)
class Trained:
    """The end of a training run.

    Attributes
    ----------
    checkpoint
        Where the last checkpoint lies.
    validation
        What validation found of it; empty without validation.
    workers
        Processes that finished the run.
    """

    checkpoint: Location
    validation: dict[str, float]
    workers: int


def train(task: TrainTask, placement: Placement, show: Progress = no_progress) -> Trained:
    """Run Ray Train to the end; a second call for the same run and storage resumes.

    What Ray Train has committed when a worker dies is kept; it commits a checkpoint within two seconds of its report.

    Raises
    ------
    MedfilipError
        What the training failed with, told without text of its input.
    """
    shown = show("train", "epochs", task.train.epochs, task.epochs_done)
    config = task.model_dump(mode="json")
    result = run_group(train_worker, config, task.run, placement, shown, _validation(task, placement))
    if result.checkpoint is None:
        raise MedfilipError(
            ErrorCode.INTERNAL, "The training ended without a checkpoint.", fix="Run with --debug to see where."
        )
    found: dict[str, float] = {}
    if task.validate_every:
        metrics = dict(result.metrics or {})
        # Ray Train goes on without a validation that failed; here its error is wanted, or its numbers after all.
        metrics = metrics if CATEGORIES in metrics else _validate_again(task, placement, result.checkpoint)
        found = {name: float(value) for name, value in metrics.items() if name.startswith("zero_shot_")}
    ended: dict[str, Any] = result.return_value or {}
    return Trained(Location(placement.storage.scheme, result.checkpoint.path), found, int(ended["workers"]))


def _validation(task: TrainTask, placement: Placement) -> Any:
    from ray.train import ValidationConfig
    from ray.train import ValidationTaskConfig as TaskConfig

    if not task.validate_every:
        return None
    return ValidationConfig(
        fn=validate_checkpoint,
        task_config=TaskConfig(fn_kwargs={"task": task.model_dump(mode="json")}),
        ray_remote_kwargs=_validation_resources(placement),
    )


def _validation_resources(placement: Placement) -> dict[str, Any]:
    # Without a GPU that is left over, validation takes a CPU: waiting for one, it would run after the training.
    if placement.validation_gpu:
        return {"num_cpus": 1, "num_gpus": 1}
    return {"num_cpus": 1, **({"runtime_env": HIDDEN_GPUS} if placement.hide_gpus else {})}


def _validate_again(task: TrainTask, placement: Placement, checkpoint: ray.train.Checkpoint) -> dict[str, float]:
    import ray

    remote = ray.remote(**_validation_resources(placement))(validate_checkpoint)
    try:
        found: dict[str, float] = ray.get(remote.remote(checkpoint, task=task.model_dump(mode="json")))
    except ray.exceptions.RayError as error:
        raise task_error(error) from error
    return found


def train_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Train in one process of a group that Ray Train has set up.

    Returns
    -------
    dict
        The number of processes, or the error that all of them ran into.
    """
    task, world = TrainTask.model_validate(config), World.current()
    take_device()

    def work() -> dict[str, Any]:
        data = load_pairs(
            task.pairs,
            task.images,
            task.train,
            ontology=load_ontology(),
            knowledge=load_knowledge(),
            synthetic=task.synthetic,
        )
        with tempfile.TemporaryDirectory() as workdir:
            reporter = RayReporter(task, world, Path(workdir))
            fit(task.train, data, world, reporter, Path(workdir))
            reporter.close()
        return {"workers": world.size}

    return told(work)


def validate_checkpoint(checkpoint: ray.train.Checkpoint, *, task: dict[str, Any]) -> dict[str, float]:
    """Measure a checkpoint in a task of its own, while training goes on; its numbers go to the logs too."""
    import torch

    told = TrainTask.model_validate(task)
    pairs = load_split(
        told.pairs,
        told.images,
        told.train,
        "validation",
        ontology=load_ontology(),
        knowledge=load_knowledge(),
    )
    with checkpoint.as_directory() as folder, tempfile.TemporaryDirectory() as workdir:
        metrics = json.loads((Path(folder) / "metrics.json").read_bytes())
        found = zero_shot_metrics(Path(folder), pairs, told.train, "cuda" if torch.cuda.is_available() else "cpu")
        log = told.log("validation", Path(workdir))
        log.write(int(metrics["step"]), found, "validation")
        log.flush()  # not closed: that would tell MLflow that the training has ended
    return found


class RayReporter(GroupReporter):
    """Logs what it is told beside what it hands to Ray Train.

    Parameters
    ----------
    task, world
        The run, and which of its processes this is.
    workdir
        Local folder that ends with this process.
    """

    def __init__(self, task: TrainTask, world: World, workdir: Path) -> None:
        super().__init__(workdir)
        self._task = task
        self._log: NumberLog = task.log("train", workdir) if world.rank == 0 else ManyLogs([])
        self._reports = 0

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the numbers of some steps."""
        self._log.write(step, metrics, "step")

    def report(self, metrics: Mapping[str, float], checkpoint: Path | None) -> None:
        """Report from every rank, as Ray Train's barrier asks; rank 0 brings the checkpoint."""
        self._reports += 1
        if checkpoint is not None:
            self._log.write(int(metrics["step"]), metrics, "report")
            # Before the checkpoint: what is told of steps that a resumed run does not repeat must not be lost.
            self._log.flush()
        self._report(metrics, checkpoint, validation=checkpoint is not None and self._is_validated(metrics))
        if checkpoint is not None:
            progress = {"epoch": metrics["epoch"]}
            Location.parse(self._task.progress).write_bytes(json.dumps(progress).encode())
        self._forget_all_but(checkpoint)

    def close(self) -> None:
        """End the logs."""
        self._log.close()

    def _is_validated(self, metrics: Mapping[str, float]) -> bool:
        every = self._task.validate_every
        is_last = metrics["epoch"] >= self._task.train.epochs
        return every > 0 and (is_last or self._reports % every == 0)
