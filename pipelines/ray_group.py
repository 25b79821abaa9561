"""A group of training processes on Ray Train: how it is asked for, where it runs, what it reports, how it ends.

What is trained is for the job to say: `pipelines.ray_train` and `pipelines.ray_finetune`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import model_validator

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import operational
from medfilip.storage.location import Location
from medfilip.storage.run import Run
from pipelines.job import JobSettings
from pipelines.progress import ProgressPrinter
from pipelines.runtime import Progress, no_progress, task_error

if TYPE_CHECKING:
    import ray.train

# Every worker runs into these at the same step, and would again: they are returned, because Ray Train starts the
# workers of any error that is raised anew, as often as it survives the death of one.
SAME_EVERYWHERE = frozenset(
    {
        ErrorCode.CONFIG_INVALID,
        ErrorCode.NO_TRAINING_PAIRS,
        ErrorCode.SCHEMA_VERSION_MISMATCH,
        ErrorCode.TRAINING_DIVERGED,
    }
)
_SMALL_GROUP, _REPORTS_TAKEN_S = 32, 0.5
HIDDEN_GPUS = {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}


class GroupSettings(JobSettings):
    """What a job that trains can be told of its processes; any number of them trains the same."""

    workers: int = operational(1, ge=1, le=4096, description="training processes, the most of them if elastic")
    min_workers: int | None = operational(
        None, ge=1, description="elastic: start and go on with as few processes as this; empty: always 'workers'"
    )
    gpus: bool | None = operational(
        None, description="a GPU for each process; empty: if the cluster has GPUs now, true waits for them"
    )
    max_failures: int = operational(
        3, ge=0, description="worker failures survived, each at the cost of the steps since the last checkpoint"
    )
    storage: str | None = operational(
        None,
        description="where checkpoints are kept during the training, a folder that all nodes share or "
        "s3://bucket/prefix; empty: below the run",
    )
    quiet: bool = operational(False, description="show no progress")

    @model_validator(mode="after")
    def _check_workers(self) -> GroupSettings:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers={self.min_workers} is above workers={self.workers}")
        return self

    @property
    def least_workers(self) -> int:
        """The number of processes it takes to start."""
        return self.workers if self.min_workers is None else self.min_workers

    @property
    def progress(self) -> Progress:
        """How progress is shown."""
        return no_progress if self.quiet else ProgressPrinter().stage

    def storage_of(self, run: Run) -> Location:
        """Return where the checkpoints of a run are kept while it trains."""
        return Location.parse(self.storage) if self.storage is not None else run.staging / "train"


@dataclass(frozen=True)
class Placement:
    """Where and how stubbornly a run is trained.

    Attributes
    ----------
    workers
        Processes, or the least and the most of them.
    gpus
        Whether each has a GPU.
    validation_gpu
        Whether there is one more for validation.
    hide_gpus
        Whether there are GPUs that processes without one must not take.
    """

    workers: int | tuple[int, int]
    gpus: bool
    validation_gpu: bool
    hide_gpus: bool
    max_failures: int
    storage: Location
    keep_checkpoints: int


def cluster_resources() -> dict[str, float]:
    """Return the logical resources of the connected cluster."""
    import ray

    return dict(ray.cluster_resources())


def placement(
    settings: GroupSettings, storage: Location, has: Mapping[str, float], *, keep_checkpoints: int = 1
) -> Placement:
    """Decide what the processes run on, from the settings and what the cluster has.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` if the cluster can never hold the processes.
    """
    gpus, least = int(has.get("GPU", 0)), settings.least_workers
    use_gpus = gpus > 0 if settings.gpus is None else settings.gpus
    if settings.gpus is None and 0 < gpus < least:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"{'workers' if settings.min_workers is None else 'min_workers'}={least} is above the cluster's {gpus} "
            "GPUs; each process takes one.",
            fix=f"Lower it to {gpus}, set gpus=true to wait for more GPUs, or gpus=false to train on CPUs.",
        )
    grows = bool(settings.ray.address or os.environ.get("RAY_ADDRESS"))
    if not grows and not use_gpus and least > int(has.get("CPU", 0)):
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"{least} processes do not fit the {int(has.get('CPU', 0))} logical CPUs of the local cluster.",
            fix=f"Lower workers, give min_workers, or raise ray.num_cpus to {least}.",
        )
    return Placement(
        workers=settings.workers if least == settings.workers else (least, settings.workers),
        gpus=use_gpus,
        validation_gpu=use_gpus and gpus > settings.workers,
        hide_gpus=gpus > 0,
        max_failures=settings.max_failures,
        storage=storage,
        keep_checkpoints=keep_checkpoints,
    )


def run_group(
    worker: Callable[[dict[str, Any]], dict[str, Any]],
    config: dict[str, Any],
    name: str,
    placement: Placement,
    shown: AbstractContextManager[None],
    validation: Any = None,
) -> ray.train.Result:
    """Run a group to its end; a second call for the same name and storage resumes.

    Parameters
    ----------
    worker
        What each process runs; what it returns of rank 0 is in the result.
    config
        What it is told: plain data, because Ray Train keeps it as JSON.
    name
        Id of the run. Ray resumes by name: it makes a resumed run find its own checkpoints and no other's.
    shown
        Shows progress while the group runs.
    validation
        A ``ray.train.ValidationConfig``.

    Raises
    ------
    MedfilipError
        What the training failed with, told without text of its input.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    placement.storage.make_dir()
    most = placement.workers if isinstance(placement.workers, int) else placement.workers[1]
    if most <= _SMALL_GROUP:
        # Ray Train takes reports every two seconds, which each of them waits for: longer than a small cell trains.
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", str(_REPORTS_TAKEN_S))
    trainer = TorchTrainer(
        worker,
        train_loop_config=config,
        scaling_config=ScalingConfig(num_workers=placement.workers, use_gpu=placement.gpus),
        run_config=RunConfig(
            name=name,
            storage_path=placement.storage.path,
            storage_filesystem=placement.storage.filesystem,
            failure_config=FailureConfig(max_failures=placement.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=placement.keep_checkpoints),
            worker_runtime_env=HIDDEN_GPUS if placement.hide_gpus and not placement.gpus else None,
        ),
        validation_config=validation,
    )
    try:
        with shown:
            result = trainer.fit()
    except Exception as error:
        raise task_error(error) from error
    ended: dict[str, Any] = result.return_value or {}
    if "code" in ended:
        raise MedfilipError(ErrorCode(ended["code"]), ended["message"], fix=ended["fix"])
    return result


def told(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return what the work of a process returns, or the error that all processes ran into."""
    try:
        return work()
    except MedfilipError as error:
        if error.code not in SAME_EVERYWHERE:
            raise
        return {"code": str(error.code), "message": error.message, "fix": error.fix}


def take_device() -> None:
    """Make the GPU that Ray Train gave this worker the current one: its neighbours see the same GPUs."""
    import torch
    from ray.train.torch import get_device

    device = get_device()
    if isinstance(device, torch.device) and device.type == "cuda":
        torch.cuda.set_device(device)


class GroupReporter:
    """Hands metrics and checkpoints to Ray Train, and the latest checkpoint back after a restart.

    Parameters
    ----------
    workdir
        Local folder that ends with this process.
    """

    def __init__(self, workdir: Path) -> None:
        self._workdir = workdir
        self._stored: Path | None = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take numbers between reports; they go nowhere."""

    def report(self, metrics: Mapping[str, float], checkpoint: Path | None) -> None:
        """Report from every rank, as Ray Train's barrier asks; rank 0 brings the checkpoint."""
        self._report(metrics, checkpoint)
        self._forget_all_but(checkpoint)

    def latest_checkpoint(self) -> Path | None:
        """Copy the latest committed checkpoint to this machine."""
        import ray.train

        latest = ray.train.get_checkpoint()
        return Path(latest.to_directory(os.fspath(self._workdir / "resumed"))) if latest is not None else None

    def _report(self, metrics: Mapping[str, float], checkpoint: Path | None, **how: Any) -> None:
        import ray.train

        stored = ray.train.Checkpoint.from_directory(checkpoint) if checkpoint is not None else None
        ray.train.report(dict(metrics), checkpoint=stored, **how)

    def _forget_all_but(self, checkpoint: Path | None) -> None:
        # It is in the storage now; the latest stays, because the end of the training looks at it again.
        if self._stored is not None and self._stored != checkpoint:
            shutil.rmtree(self._stored, ignore_errors=True)
        self._stored = checkpoint
