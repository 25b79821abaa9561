"""Pretrain: `pairs` + `images` → a checkpoint, trained by Ray Train against the semantic similarity matrix.

The training itself is `medfilip.training`, which knows nothing of Ray; here it is placed on workers, fed, its
checkpoints stored, and resumed from the last one after a failure or a killed driver.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import operational
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.model.checkpoint import load_checkpoint, save_checkpoint
from medfilip.model.distributed import World
from medfilip.storage.location import Location
from medfilip.storage.manifest import Shard, read_manifest, run_folder
from medfilip.storage.run import Run, open_run, register_file
from medfilip.training.data import load_pairs
from medfilip.training.loop import fit
from medfilip.training.settings import TrainSettings
from pipelines.job import JobSettings, Outcome, job_spec
from pipelines.runtime import task_error
from serve.cluster import ray_session

CHECKPOINT = "checkpoint"


class PretrainSettings(JobSettings):
    """Settings of ``medfilip pretrain``."""

    pairs: str = Field(description="run of an inject job")
    images: str = Field(description="run of the ingest job its images came from")
    train: TrainSettings = Field(TrainSettings(), description="the training")
    # More workers give the same losses: the objective sees the global batch at any number of them.
    workers: int = operational(1, ge=1, description="training processes, each with one GPU if there are GPUs")
    max_failures: int = operational(3, ge=0, description="worker failures survived before the job gives up")


SETTINGS = PretrainSettings


def run(settings: PretrainSettings, *, new_run: bool = False) -> Outcome:
    """Train a model; see the module's text."""
    pairs, images = read_manifest(run_folder(settings.pairs)), read_manifest(run_folder(settings.images))
    spec = job_spec(
        "pretrain",
        {"train": settings.train.model_dump(mode="json")},
        inputs={"pairs": pairs.fingerprint, "images": images.fingerprint},
        versions={"ontology": load_ontology().fingerprint, "knowledge": load_knowledge().fingerprint},
    )
    with open_run(Location.parse(settings.root), spec, new_run=new_run) as pretrain:
        if pretrain.manifest is not None:
            return _outcome(pretrain, settings, already_finished=True)
        with ray_session(settings.ray, settings.ray.address), pretrain.stage("train"):
            trained = _train(pretrain, settings, synthetic=images.counts.get("synthetic_images", 0) > 0)
        files, metrics = _publish_checkpoint(pretrain.location, trained)
        pretrain.publish({}, files=files, metrics=metrics, counts={"training_workers": settings.workers})
    return _outcome(pretrain, settings)


def _outcome(pretrain: Run, settings: PretrainSettings, *, already_finished: bool = False) -> Outcome:
    steps = (
        f"medfilip evaluate checkpoint={pretrain.location} images={settings.images} findings=EXTRACT_RUN",
        f"medfilip serve {pretrain.location}",
    )
    return Outcome.of(pretrain, *steps, already_finished=already_finished)


def _train(pretrain: Run, settings: PretrainSettings, *, synthetic: bool) -> Location:
    """Run Ray Train and return where the last checkpoint lies; a second call of the same run resumes."""
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    use_gpu = float(ray.cluster_resources().get("GPU", 0)) >= settings.workers
    storage = pretrain.staging / "train"
    storage.make_dir()
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "pairs": str(run_folder(settings.pairs)),
            "images": str(run_folder(settings.images)),
            "train": settings.train.model_dump(mode="json"),
            "synthetic": synthetic,
        },
        scaling_config=ScalingConfig(num_workers=settings.workers, use_gpu=use_gpu),
        run_config=RunConfig(
            # Ray resumes by name: the run id makes a resumed run find its own checkpoints and no other's.
            name=pretrain.run_id,
            storage_path=storage.path,
            storage_filesystem=storage.filesystem,
            failure_config=FailureConfig(max_failures=settings.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    try:
        result = trainer.fit()
    except Exception as error:
        raise task_error(error) from error
    if result.checkpoint is None:
        raise MedfilipError(
            ErrorCode.INTERNAL, "The training ended without a checkpoint.", fix="Run with --debug to see where."
        )
    return Location(storage.scheme, result.checkpoint.path)


def train_worker(config: dict[str, Any]) -> None:
    """Train in one process of a group that Ray Train has set up."""
    ontology, knowledge = load_ontology(), load_knowledge()
    settings = TrainSettings.model_validate(config["train"])
    data = load_pairs(
        config["pairs"],
        config["images"],
        settings,
        ontology=ontology,
        knowledge=knowledge,
        synthetic=config["synthetic"],
    )
    with tempfile.TemporaryDirectory() as workdir:
        fit(settings, data, World.current(), RayReporter(), Path(workdir))


class RayReporter:
    """Hands metrics and checkpoints to Ray Train, and the latest checkpoint back after a restart."""

    def report(self, metrics: Mapping[str, float], checkpoint: Path | None) -> None:
        """Report from every rank, as Ray Train's barrier asks; rank 0 brings the checkpoint."""
        import ray.train

        stored = ray.train.Checkpoint.from_directory(checkpoint) if checkpoint is not None else None
        ray.train.report(dict(metrics), checkpoint=stored)

    def latest_checkpoint(self) -> Path | None:
        """Copy the latest committed checkpoint to this machine."""
        import ray.train

        latest = ray.train.get_checkpoint()
        return Path(latest.to_directory()) if latest is not None else None


def _publish_checkpoint(run: Location, trained: Location) -> tuple[list[Shard], dict[str, float]]:
    """Write the model, without the optimiser's state, below the run and list its files."""
    with tempfile.TemporaryDirectory() as folder:
        local, clean = Path(folder) / "trained", Path(folder) / "clean"
        local.mkdir()
        for file in trained.children():
            (local / file.name).write_bytes(file.read_bytes())
        model = load_checkpoint(local)
        save_checkpoint(clean, model.model, model.versions, calibration=model.calibration, metrics=model.metrics)
        for path in sorted(clean.iterdir()):
            (run / f"{CHECKPOINT}/{path.name}").write_bytes(path.read_bytes())
        files = [register_file(run, f"{CHECKPOINT}/{path.name}") for path in sorted(clean.iterdir())]
    return files, {name: float(value) for name, value in model.metrics.items() if isinstance(value, int | float)}
