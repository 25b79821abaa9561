"""Pretrain: `pairs` + `images` → a checkpoint, trained by Ray Train against the semantic similarity matrix.

The driver sees manifests and the finished model only; pairs and images are read by the workers that use them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from pydantic import Field, model_validator

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import operational
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.storage.location import Location
from medfilip.storage.manifest import Shard, read_manifest, run_folder
from medfilip.storage.run import Run, open_run, register_file
from medfilip.training.data import unseen_categories
from medfilip.training.logs import MlflowSettings, require_mlflow
from medfilip.training.settings import TrainSettings
from medfilip.training.sources import check_inputs
from medfilip.training.validation import write_model
from pipelines.job import JobSettings, Outcome, job_spec
from pipelines.progress import ProgressPrinter
from pipelines.ray_train import Placement, TrainTask, cluster_resources, train
from pipelines.runtime import RaySettings, no_progress
from serve.cluster import ray_session

CHECKPOINT, LOGS = "checkpoint", "logs"


class PretrainSettings(JobSettings):
    """Settings of ``medfilip pretrain``."""

    pairs: str = Field(description="run of an inject job")
    images: str = Field(description="run of the ingest job its images came from")
    train: TrainSettings = Field(TrainSettings(), description="the training")
    # More workers give the same losses: the objective sees the global batch at any number of them.
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
    keep_checkpoints: int = operational(2, ge=1, description="checkpoints kept during the training")
    validate_every: int = operational(
        1, ge=0, description="reports from one zero-shot validation to the next, while training goes on; 0: none"
    )
    quiet: bool = operational(False, description="show no progress")
    mlflow: MlflowSettings = operational(MlflowSettings(), description="MLflow, beside TensorBoard events")

    @model_validator(mode="after")
    def _check_workers(self) -> PretrainSettings:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers={self.min_workers} is above workers={self.workers}")
        if self.train.global_batch < self.workers:
            raise ValueError(
                f"train.global_batch={self.train.global_batch} cannot be split among workers={self.workers}"
            )
        return self

    @property
    def least_workers(self) -> int:
        """The number of processes it takes to start."""
        return self.workers if self.min_workers is None else self.min_workers


SETTINGS = PretrainSettings


def run(settings: PretrainSettings, *, new_run: bool = False) -> Outcome:
    """Train a model; see the module's text."""
    pairs, images = read_manifest(run_folder(settings.pairs)), read_manifest(run_folder(settings.images))
    if settings.mlflow.tracking_uri is not None:
        require_mlflow()
    spec = job_spec(
        "pretrain",
        {"train": settings.train.semantic()},
        inputs={"pairs": pairs.fingerprint, "images": images.fingerprint},
        versions={"ontology": load_ontology().fingerprint, "knowledge": load_knowledge().fingerprint},
    )
    with open_run(Location.parse(settings.root), spec, new_run=new_run) as pretrain:
        storage = _storage(settings, pretrain)
        if pretrain.manifest is None:
            task = _task(settings, pretrain)
            with ray_session(settings.ray, settings.ray.address), pretrain.stage("train"):
                show = no_progress if settings.quiet else ProgressPrinter().stage
                trained = train(task, placement(settings, storage, cluster_resources()), show)
            files, metrics = _publish_checkpoint(pretrain.location, trained.checkpoint, trained.validation)
            counts = {"training_workers": trained.workers}
            pretrain.publish({}, files=files, metrics=metrics, counts=counts)
            already_finished = False
        else:
            already_finished = True
        # The optimiser's state, also that of a driver that was killed after it had published.
        (storage / pretrain.run_id).delete()
    return _outcome(pretrain, settings, already_finished=already_finished)


def _outcome(pretrain: Run, settings: PretrainSettings, *, already_finished: bool) -> Outcome:
    steps = (
        f"medfilip evaluate checkpoint={pretrain.location} images={settings.images} findings=EXTRACT_RUN",
        f"medfilip serve {pretrain.location}",
    )
    return Outcome.of(pretrain, *steps, already_finished=already_finished)


def _storage(settings: PretrainSettings, pretrain: Run) -> Location:
    return Location.parse(settings.storage) if settings.storage is not None else pretrain.staging / "train"


def _task(settings: PretrainSettings, pretrain: Run) -> TrainTask:
    pairs, images, ontology = run_folder(settings.pairs), run_folder(settings.images), load_ontology()
    unseen_categories(settings.train, ontology)  # names that are none are told before anything starts
    return TrainTask(
        run=pretrain.run_id,
        pairs=str(pairs),
        images=str(images),
        train=settings.train,
        synthetic=check_inputs(str(pairs), str(images), ontology),
        logs=str(pretrain.location / LOGS),
        progress=str(pretrain.staging / "progress.json"),
        validate_every=settings.validate_every,
        mlflow=settings.mlflow,
    )


class Wanted(Protocol):
    """What a training job's settings say of its processes; see `PretrainSettings`."""

    @property
    def ray(self) -> RaySettings: ...  # noqa: D102
    @property
    def workers(self) -> int: ...  # noqa: D102
    @property
    def min_workers(self) -> int | None: ...  # noqa: D102
    @property
    def least_workers(self) -> int: ...  # noqa: D102
    @property
    def gpus(self) -> bool | None: ...  # noqa: D102
    @property
    def max_failures(self) -> int: ...  # noqa: D102
    @property
    def keep_checkpoints(self) -> int: ...  # noqa: D102


def placement(settings: Wanted, storage: Location, has: Mapping[str, float]) -> Placement:
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
        keep_checkpoints=settings.keep_checkpoints,
    )


def _publish_checkpoint(
    run: Location, trained: Location, validation: Mapping[str, float]
) -> tuple[list[Shard], dict[str, float]]:
    """Write the model, without the optimiser's state, below the run and list its files."""
    with tempfile.TemporaryDirectory() as folder:
        local, clean = Path(folder) / "trained", Path(folder) / "clean"
        local.mkdir()
        for file in trained.children():
            (local / file.name).write_bytes(file.read_bytes())
        metrics = write_model(local, clean, validation)
        for path in sorted(clean.iterdir()):
            (run / f"{CHECKPOINT}/{path.name}").write_bytes(path.read_bytes())
        files = [register_file(run, f"{CHECKPOINT}/{path.name}") for path in sorted(clean.iterdir())]
    return files, metrics
