"""The training run: build or resume, step, report, finish. It runs in one process, under torchrun or Ray Train alike.

Who starts the processes also brings a `medfilip.training.reporter.Reporter`, which is told of metrics and checkpoints
and knows the latest one.

Legend of tensor names: I images, N units, S side, L categories, D joint dimension.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed as dist

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_bytes
from medfilip.findings.truth import ABSENT, UNKNOWN, category_truth
from medfilip.model.calibration import Calibration, fit_calibration
from medfilip.model.checkpoint import Versions, save_checkpoint
from medfilip.model.diagnoser import Diagnoser
from medfilip.model.distributed import World, share_weights
from medfilip.model.dual_encoder import DualEncoder
from medfilip.model.encoders import checkpoint_activations
from medfilip.model.familiarity import Familiarity
from medfilip.model.tokenizer import Tokenizer
from medfilip.training.average import Average
from medfilip.training.data import PairSet, TrainData, vocabulary_texts
from medfilip.training.meter import LOG_STEPS, Meter
from medfilip.training.order import steps_per_epoch
from medfilip.training.pairs import silence
from medfilip.training.reporter import Reporter
from medfilip.training.settings import TrainSettings
from medfilip.training.sharding import shard
from medfilip.training.state import Progress, resume, run_name, state_files, weights_of
from medfilip.training.step import Task, batch_loss, make_optimizer, train_step
from medfilip.training.stream import BatchStream
from medfilip.training.told import count_slots
from medfilip.training.warmup import frozen_text_tower, warm_up_texts

_VALIDATION_UNITS = 512  # enough for a stable loss; the evaluation proper sees everything
_CENTRING_IMAGES = 128
_EMBED_UNITS = 64
_SHORT_TEXTS = 128  # tokens; the attention of longer texts would need too much memory when it is written out


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
    average: Average | None
    task: Task
    name: str

    @property
    def versions(self) -> Versions:
        data = self.data
        return Versions(
            data.ontology.fingerprint, data.knowledge.fingerprint, data.synthetic, data.injection, self.settings.unseen
        )

    @property
    def steps(self) -> int:
        return self.settings.epochs * steps_per_epoch(len(self.data.train), self.settings.global_batch)

    @contextmanager
    def published_weights(self) -> Iterator[DualEncoder]:
        """Yield the model as it would be published: averaged if there is an average, in eval mode."""
        self.model.eval()
        with self.average.applied() if self.average is not None else nullcontext():
            yield self.model
        self.model.train()


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
        smaller than the number of processes, the checkpoint belongs to another run, or a setting does not fit the
        model.
    """
    latest = reporter.latest_checkpoint()
    run = _start(settings, data, world, workdir, fresh=latest is None)
    done = resume(latest, run.model, run.optimizer, run.average, run.name) if latest is not None else 0
    every = settings.report_steps or steps_per_epoch(len(data.train), settings.global_batch)
    meter = Meter(run.world, settings, run.steps)
    stream = BatchStream(data.train, run.model.tokenizer, settings, world, pin=run.model.bias.device.type == "cuda")
    for step, batch in stream.steps(done, run.steps):
        loss, norm = train_step(
            run.model, batch, run.optimizer, run.task, settings, progress=(step + 1) / run.steps, world=world
        )
        if run.average is not None:
            run.average.update(step + 1)
        meter.take(step + 1, loss, norm, len(batch), stream.waited)
        if (step + 1) % LOG_STEPS == 0 and world.rank == 0:
            reporter.log(step + 1, meter.recent() | {"logit_scale": run.model.scale().item()})
        if (step + 1) % every == 0 and step + 1 < run.steps:
            meter.check()
            metrics = _metrics(run, step + 1, meter.losses())
            reporter.report(metrics, _save(run, step + 1, metrics))
    meter.check()
    losses = meter.losses()
    if latest is not None and done == run.steps:
        losses = _last_loss(latest)
    return _finish(run, losses, meter.speed(), reporter)


def _last_loss(checkpoint: Path) -> list[float]:
    """Return the loss of a checkpoint after which no step is left: the metrics must say it still."""
    metrics = json.loads((checkpoint / "metrics.json").read_bytes())
    return [metrics["loss"]] if "loss" in metrics else []


def build_model(
    settings: TrainSettings, data: TrainData, world: World, device: torch.device | str = "cpu"
) -> DualEncoder:
    """Build the untrained model on a device; every process gets the same weights and the tokenizer of rank 0."""
    config = settings.model
    if config.text is not None:
        tokenizer = Tokenizer.of_pretrained(config.text, config.max_tokens)
    else:
        trained = Tokenizer.train(
            vocabulary_texts(data), vocabulary=config.vocabulary, max_tokens=config.max_tokens
        ).to_json()
        tokenizer = Tokenizer.from_json(_from_rank_0(trained, world), config.max_tokens)
    torch.manual_seed(settings.seed)
    model = DualEncoder(config, tokenizer).to(device)
    if model.bias.device.type == "cpu" and config.max_tokens <= _SHORT_TEXTS:
        # The backward pass of the fused kernel takes a CPU longer than all else of a small text tower together.
        model.text.backbone.set_attn_implementation("eager")  # type: ignore[operator]
    sample = range(min(len(data.train.columns.shard_I), _CENTRING_IMAGES))
    model.centre(data.train.pixels(sample), data.train.all_texts()[: 4 * _CENTRING_IMAGES])
    return model


def embed_units(
    diagnoser: Diagnoser, pairs: PairSet, settings: TrainSettings
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Embed all units of a split, each with the images that evaluation looks at.

    Returns
    -------
    image_ND
        The units.
    texture_IF
        `Diagnoser.texture` of their images.
    """
    embedded, textures = [], []
    for begin in range(0, len(pairs), _EMBED_UNITS):
        images = [
            pairs.images_of(unit, settings.max_images) for unit in range(begin, min(begin + _EMBED_UNITS, len(pairs)))
        ]
        pixels_I1SS = pairs.pixels([at for unit in images for at in unit]).numpy()
        owner_I = np.repeat(np.arange(len(images)), [len(unit) for unit in images])
        feature_ID = diagnoser.image_features(pixels_I1SS)
        embedded.append(diagnoser.join(feature_ID, owner_I))
        textures.append(diagnoser.texture(feature_ID))
    if not embedded:
        return np.zeros((0, settings.model.embed_dim), np.float32), np.zeros((0, 0), np.float32)
    return np.concatenate(embedded), np.concatenate(textures)


def calibrate(diagnoser: Diagnoser, pairs: PairSet, settings: TrainSettings) -> tuple[Calibration, Familiarity | None]:
    """Fit calibration and familiarity on a validation set; categories nobody speaks about keep no curve."""
    if not len(pairs):
        return Calibration(), None
    names, truth_NL = stated_truth(pairs, settings)
    image_ND, texture_IF = embed_units(diagnoser, pairs, settings)
    margins_NL = diagnoser.score(image_ND, diagnoser.encode_labels(names)).margins
    calibration = fit_calibration(
        {name: margins_NL[:, at] for at, name in enumerate(names)},
        {name: truth_NL[:, at] for at, name in enumerate(names)},
    )
    return calibration, Familiarity.fit(texture_IF, settings.seed)


def stated_truth(pairs: PairSet, settings: TrainSettings) -> tuple[list[str], NDArray[np.int64]]:
    """Return the categories that a split speaks about, and what it says of each: 1, 0 or -1 for unknown, [N, L]."""
    ontology, order = pairs.codebook.ontology, pairs.codebook.categories
    said = [pairs.statements(unit) for unit in range(len(pairs))]
    names = sorted({name for unit in said for name, _ in unit}, key=order.index)
    # Counting silence as absence in training and not here would put the curves at the wrong prevalence.
    silent = ABSENT if settings.similarity.silent > 0 else UNKNOWN
    truth = [[category_truth(unit, name, ontology, silent=silent) for name in names] for unit in said]
    return names, np.array(truth, np.int64).reshape(len(said), len(names))


def _start(settings: TrainSettings, data: TrainData, world: World, workdir: Path, *, fresh: bool) -> _Run:
    if min(settings.global_batch, len(data.train)) < world.size:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"A global batch of {min(settings.global_batch, len(data.train))} images cannot be split "
            f"among {world.size} processes.",
            fix="Raise global_batch or use fewer processes.",
        )
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    model = build_model(settings, data, world, device).train()
    name = run_name(
        settings,
        {
            "ontology": data.ontology.fingerprint,
            "knowledge": data.knowledge.fingerprint,
            "tokenizer": sha256_bytes(model.tokenizer.to_json().encode()),
            "images": data.train.columns.fingerprint,
        },
    )
    task = Task.of(settings, data.ontology, device, silence_C=silence(data.train.columns, data.train.codebook))
    frozen = settings.similarity.mode == "text_cosine"
    if fresh or frozen:
        # Also when a run goes on, if its targets are made by the tower as it was then: a function of the seed.
        warm_up_texts(model, data, task, settings)
        share_weights(model, world)
    if frozen:
        task = replace(task, embed=frozen_text_tower(model))
    if settings.activation_checkpointing:
        checkpoint_activations(model.image)
        checkpoint_activations(model.text)
    if settings.sharding == "fsdp" and world.size > 1:
        shard(model, world)
    if settings.compile:
        model.image.compile()
        model.text.compile(dynamic=True)
    optimizer = make_optimizer(model, settings)
    average = Average(model, settings.ema) if settings.ema else None
    return _Run(settings, data, world, workdir, model, optimizer, average, task, name)


def _metrics(run: _Run, step: int, losses: list[float]) -> dict[str, float]:
    steps = steps_per_epoch(len(run.data.train), run.settings.global_batch)
    metrics = {"step": float(step), "epoch": step / steps, "logit_scale": run.model.scale().item()}
    if losses:
        metrics["loss"] = sum(losses) / len(losses)
    # With divided weights every process must take part in every forward pass; else rank 0 does it alone.
    if len(run.data.validation) and (run.world.rank == 0 or run.settings.sharding == "fsdp"):
        with run.published_weights() as model:
            metrics["validation_loss"] = validation_loss(model, run.data.validation, run.task, run.settings)
    return metrics


@torch.no_grad()
def validation_loss(model: DualEncoder, pairs: PairSet, task: Task, settings: TrainSettings) -> float:
    """Return the mean loss over at most 512 validation units, without augmentation and in eval mode."""
    was_training = model.training
    model.eval()
    task = replace(task, loss=replace(task.loss, focus=0.0))  # so that losses of different epochs can be compared
    units = range(min(len(pairs), _VALIDATION_UNITS))
    parts = [units[at : at + settings.global_batch] for at in range(0, len(units), settings.global_batch)]
    losses = [
        float(
            batch_loss(
                model, pairs.batch(part, epoch=0, settings=settings, training=False), task, World(),
                bf16=settings.precision == "bf16",
            )
        )
        for part in parts
    ]  # fmt: skip
    model.train(was_training)
    return sum(loss * len(part) for loss, part in zip(losses, parts, strict=True)) / len(units)


def _save(
    run: _Run, step: int, metrics: Mapping[str, float], calibration: Calibration | None = None,
    familiarity: Familiarity | None = None,
) -> Path | None:  # fmt: skip
    """Write a checkpoint on rank 0; with divided weights every process brings its part."""
    if run.world.rank != 0 and run.settings.sharding == "none":
        return None
    weights = weights_of(run.model, run.average)
    state = state_files(run.model, run.optimizer, run.average, Progress(step, run.name))
    if run.world.rank != 0:
        return None
    folder = run.workdir / f"step-{step:08d}"
    save_checkpoint(
        folder, run.model, run.versions, calibration=calibration, familiarity=familiarity,
        slots=count_slots(run.data.train.columns, run.data.train.codebook), metrics=metrics, extra=state,
        weights=weights,
    )  # fmt: skip
    return folder


def _finish(run: _Run, losses: list[float], speed: Mapping[str, float], reporter: Reporter) -> FitResult:
    metrics = _metrics(run, run.steps, losses)
    fitted: tuple[Calibration | None, Familiarity | None] = (None, None)
    if run.world.rank == 0 or run.settings.sharding == "fsdp":
        with run.published_weights() as model:
            diagnoser = Diagnoser(
                model, versions=run.versions, model_fingerprint="", ontology=run.data.ontology,
                knowledge=run.data.knowledge,
            )  # fmt: skip
            fitted = calibrate(diagnoser, run.data.validation, run.settings)
    folder = _save(run, run.steps, metrics, *fitted)
    if run.world.rank == 0 and speed:
        reporter.log(run.steps, speed)
    reporter.report(metrics, folder)
    return FitResult(folder, Diagnoser.load(folder).fingerprint if folder else None, metrics)


def _from_rank_0(text: str, world: World) -> str:
    if world.size == 1:
        return text
    box = [text]
    dist.broadcast_object_list(box, src=0)
    return box[0]
