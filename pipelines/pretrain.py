"""Pretrain: `pairs` + `images` → a checkpoint, trained by Ray Train against the semantic similarity matrix.

The driver sees manifests and the finished model only; pairs and images are read by the workers that use them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, model_validator

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
from pipelines.job import Outcome, job_spec
from pipelines.ray_group import GroupSettings, cluster_resources, placement
from pipelines.ray_train import TrainTask, train
from serve.cluster import ray_session

CHECKPOINT, LOGS = "checkpoint", "logs"


class PretrainSettings(GroupSettings):
    """Settings of ``medfilip pretrain``."""

    pairs: str = Field(description="run of an inject job")
    images: str = Field(description="run of the ingest job its images came from")
    train: TrainSettings = Field(TrainSettings(), description="the training")
    keep_checkpoints: int = operational(2, ge=1, description="checkpoints kept during the training")
    validate_every: int = operational(
        1, ge=0, description="reports from one zero-shot validation to the next, while training goes on; 0: none"
    )
    mlflow: MlflowSettings = operational(MlflowSettings(), description="MLflow, beside TensorBoard events")

    @model_validator(mode="after")
    def _check_batch(self) -> PretrainSettings:
        if self.train.global_batch < self.workers:
            raise ValueError(
                f"train.global_batch={self.train.global_batch} cannot be split among workers={self.workers}"
            )
        return self


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
        storage = settings.storage_of(pretrain)
        if pretrain.manifest is None:
            task = _task(settings, pretrain)
            with ray_session(settings.ray, settings.ray.address), pretrain.stage("train"):
                place = placement(settings, storage, cluster_resources(), keep_checkpoints=settings.keep_checkpoints)
                trained = train(task, place, settings.progress)
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
