"""The training run: build or resume, step, report, finish. It runs in one process, under torchrun or Ray Train alike.

Who starts the processes also brings a `Reporter`, which is told of metrics and checkpoints and knows the latest one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import distributed as dist

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint, sha256_bytes
from medfilip.findings.truth import ABSENT, UNKNOWN, category_truth
from medfilip.model.calibration import Calibration, fit_calibration
from medfilip.model.checkpoint import Versions, save_checkpoint
from medfilip.model.diagnoser import Diagnoser
from medfilip.model.distributed import World, share_weights
from medfilip.model.dual_encoder import DualEncoder
from medfilip.model.tokenizer import Tokenizer
from medfilip.training.data import PairSet, TrainData, vocabulary_texts
from medfilip.training.order import batch_rows, rank_slice, steps_per_epoch
from medfilip.training.settings import TrainSettings
from medfilip.training.state import Progress, resume, run_name, state_files
from medfilip.training.step import Task, batch_loss, make_optimizer, train_step
from medfilip.training.warmup import warm_up_texts

_VALIDATION_ROWS = 512  # enough for a stable loss; the evaluation proper sees everything
_CENTRING_ROWS = 128


class Reporter(Protocol):
    """Where metrics and checkpoints go."""

    def report(self, metrics: Mapping[str, float], checkpoint: Path | None) -> None:
        """Take metrics and a checkpoint folder; every process calls it, only rank 0 has a folder."""
        ...

    def latest_checkpoint(self) -> Path | None:
        """Return the folder to resume from, the same on every process; ``None`` starts anew."""
        ...


@dataclass(frozen=True)
class FitResult:
    """The outcome of a run; ``folder`` and ``fingerprint`` are set on rank 0 only."""

    folder: Path | None
    fingerprint: str | None
    metrics: dict[str, float]


@dataclass
class _Run:
    """What one process holds during a run."""

    settings: TrainSettings
    data: TrainData
    world: World
    workdir: Path
    model: DualEncoder
    optimizer: torch.optim.AdamW
    task: Task
    name: str

    @property
    def versions(self) -> Versions:
        return Versions(self.data.ontology.fingerprint, self.data.knowledge.fingerprint, self.data.synthetic)

    @property
    def steps(self) -> int:
        return self.settings.epochs * steps_per_epoch(len(self.data.train), self.settings.global_batch)


def fit(settings: TrainSettings, data: TrainData, world: World, reporter: Reporter, workdir: Path) -> FitResult:
    """Train, calibrate on the validation split and write the final checkpoint.

    Parameters
    ----------
    settings, data
        What to train on what.
    world
        This process among all; the process group must exist already when there are several.
    reporter
        Told of progress; asked for a checkpoint to resume from.
    workdir
        Folder for checkpoints; used by rank 0.

    Raises
    ------
    MedfilipError
        ``TRAINING_DIVERGED`` if the loss or gradient stops being a number; ``CONFIG_INVALID`` if the global batch is
        smaller than the number of processes or the checkpoint belongs to another run.
    """
    run = _start(settings, data, world, workdir)
    latest = reporter.latest_checkpoint()
    if latest is not None:
        done = resume(latest, run.model, run.optimizer, run.name)
    else:
        done = 0
        warm_up_texts(run.model, data, run.task, settings)
        share_weights(run.model, world)
    every = settings.report_steps or steps_per_epoch(len(data.train), settings.global_batch)
    losses = _last_loss(latest) if latest is not None and done == run.steps else []
    for step in range(done, run.steps):
        losses.append(_one_step(run, step))
        if (step + 1) % every == 0 and step + 1 < run.steps:
            metrics = _metrics(run, step + 1, losses)
            reporter.report(metrics, _save(run, step + 1, metrics) if world.rank == 0 else None)
            losses = []
    return _finish(run, losses, reporter)


def _last_loss(checkpoint: Path) -> list[float]:
    """Return the loss of a checkpoint after which no step is left: the metrics must say it still."""
    metrics = json.loads((checkpoint / "metrics.json").read_bytes())
    return [metrics["loss"]] if "loss" in metrics else []


def build_model(settings: TrainSettings, data: TrainData, world: World) -> DualEncoder:
    """Build the untrained model; every process gets the same weights and the tokenizer of rank 0."""
    config = settings.model
    if config.text is not None:
        tokenizer = Tokenizer.of_pretrained(config.text, config.max_tokens)
    else:
        trained = Tokenizer.train(
            vocabulary_texts(data), vocabulary=config.vocabulary, max_tokens=config.max_tokens
        ).to_json()
        tokenizer = Tokenizer.from_json(_from_rank_0(trained, world), config.max_tokens)
    torch.manual_seed(settings.seed)
    model = DualEncoder(config, tokenizer)
    sample = range(min(len(data.train), _CENTRING_ROWS))
    model.centre(data.train.pixels(sample), data.train.all_texts()[: 4 * _CENTRING_ROWS])
    return model


def calibrate(diagnoser: Diagnoser, pairs: PairSet, settings: TrainSettings) -> Calibration:
    """Fit the calibration on a validation set; categories nobody speaks about keep no curve."""
    ontology, names = pairs.codebook.ontology, pairs.codebook.categories
    mentioned = sorted({name for i in range(len(pairs)) for name, _ in pairs.statements(i)}, key=names.index)
    if not mentioned:
        return Calibration()
    # Counting silence as absence in training and not here would put the curves at the wrong prevalence.
    silent = ABSENT if settings.similarity.silent > 0 else UNKNOWN
    embedded = [
        diagnoser.encode_images(pairs.pixels(range(i, min(i + 64, len(pairs)))).numpy())
        for i in range(0, len(pairs), 64)
    ]
    margins_NL = diagnoser.score(np.concatenate(embedded), diagnoser.encode_labels(mentioned)).margins
    truths = {
        name: np.array([category_truth(pairs.statements(i), name, ontology, silent=silent) for i in range(len(pairs))])
        for name in mentioned
    }
    return fit_calibration({name: margins_NL[:, at] for at, name in enumerate(mentioned)}, truths)


def _start(settings: TrainSettings, data: TrainData, world: World, workdir: Path) -> _Run:
    if min(settings.global_batch, len(data.train)) < world.size:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"A global batch of {min(settings.global_batch, len(data.train))} images cannot be split "
            f"among {world.size} processes.",
            fix="Raise global_batch or use fewer processes.",
        )
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    model = build_model(settings, data, world).to(device).train()
    name = run_name(
        settings,
        {
            "ontology": data.ontology.fingerprint,
            "knowledge": data.knowledge.fingerprint,
            "tokenizer": sha256_bytes(model.tokenizer.to_json().encode()),
            "rows": fingerprint([row["image_id"] for row in data.train.rows]),
        },
    )
    task = Task.of(settings, data.ontology, device)
    return _Run(settings, data, world, workdir, model, make_optimizer(model, settings), task, name)


def _one_step(run: _Run, step: int) -> float:
    settings = run.settings
    epoch, rows = batch_rows(len(run.data.train), settings.global_batch, seed=settings.seed, step=step)
    mine = rows[rank_slice(len(rows), run.world)].tolist()
    batch = run.data.train.batch(mine, epoch=epoch, settings=settings)
    result = train_step(
        run.model, batch, run.optimizer, run.task, settings, progress=(step + 1) / run.steps, world=run.world
    )
    if not math.isfinite(result["loss"]) or not math.isfinite(result["gradient_norm"]):
        raise MedfilipError(
            ErrorCode.TRAINING_DIVERGED,
            f"The loss or its gradient is not a number at step {step + 1} of {run.steps}.",
            fix=f"Lower learning_rate (now {settings.learning_rate:g}) or set precision to fp32.",
        )
    return result["loss"]


def _metrics(run: _Run, step: int, losses: list[float]) -> dict[str, float]:
    steps = steps_per_epoch(len(run.data.train), run.settings.global_batch)
    metrics = {"step": float(step), "epoch": step / steps, "logit_scale": run.model.scale().item()}
    if losses:
        metrics["loss"] = sum(losses) / len(losses)
    if run.world.rank == 0 and len(run.data.validation):
        metrics["validation_loss"] = validation_loss(run.model, run.data.validation, run.task, run.settings)
    return metrics


@torch.no_grad()
def validation_loss(model: DualEncoder, pairs: PairSet, task: Task, settings: TrainSettings) -> float:
    """Return the mean loss over at most 512 validation pairs, without augmentation and in eval mode."""
    was_training = model.training
    model.eval()
    rows = range(min(len(pairs), _VALIDATION_ROWS))
    parts = [rows[at : at + settings.global_batch] for at in range(0, len(rows), settings.global_batch)]
    losses = [
        float(batch_loss(model, pairs.batch(part, epoch=0, settings=settings, training=False), task, World()))
        for part in parts
    ]
    model.train(was_training)
    return sum(loss * len(part) for loss, part in zip(losses, parts, strict=True)) / len(rows)


def _save(run: _Run, step: int, metrics: Mapping[str, float], calibration: Calibration | None = None) -> Path:
    folder = run.workdir / f"step-{step:08d}"
    save_checkpoint(
        folder,
        run.model,
        run.versions,
        calibration=calibration,
        metrics=metrics,
        extra=state_files(run.model, run.optimizer, Progress(step, run.name)),
    )
    return folder


def _finish(run: _Run, losses: list[float], reporter: Reporter) -> FitResult:
    metrics = _metrics(run, run.steps, losses)
    if run.world.rank != 0:
        reporter.report(metrics, None)
        return FitResult(None, None, metrics)
    diagnoser = Diagnoser(
        run.model, versions=run.versions, model_fingerprint="", ontology=run.data.ontology, knowledge=run.data.knowledge
    )
    calibration = calibrate(diagnoser, run.data.validation, run.settings)
    folder = _save(run, run.steps, metrics, calibration)
    reporter.report(metrics, folder)
    return FitResult(folder, Diagnoser.load(folder).fingerprint, metrics)


def _from_rank_0(text: str, world: World) -> str:
    if world.size == 1:
        return text
    box = [text]
    dist.broadcast_object_list(box, src=0)
    return box[0]
