"""One cell of the grid, trained: steps, looks at the validation split, the best weights; resumable, exactly.

Batches, learning rate and augmentation are functions of seed and step, as in pre-training. A state holds weights,
moments and the best weights so far; a run that goes on from one ends with the bits of an undisturbed run.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.model.checkpoint import WEIGHTS, read_files, write_files
from medfilip.model.distributed import World, gather, share_weights, sum_gradients, total
from medfilip.training.order import batch_rows, rank_slice
from medfilip.training.reporter import Reporter
from medfilip.training.state import OPTIMIZER, PROGRESS, moments_of, restore_moments
from medfilip.training.step import adamw, clip_gradients, schedule
from medfilip.transfer.problems import Ints, Predicted, Problem, device_of
from medfilip.transfer.settings import TuneSettings

BEST = "best.safetensors"


@dataclass(frozen=True)
class Plan:
    """What a cell is trained on.

    Attributes
    ----------
    name
        Names settings and data: another cell's state is never resumed.
    train, validation
        Positions of images.
    pretrained
        Whether the tower learns at ``backbone_rate``.
    """

    name: str
    train: Ints
    validation: Ints
    seed: int
    pretrained: bool


@dataclass
class Fitted:
    """The best step of a cell.

    Attributes
    ----------
    step
        Of the best weights; 0 if no step was looked at yet.
    quality
        On the validation split.
    """

    step: int = 0
    quality: float = -math.inf


@dataclass(frozen=True)
class _Progress:
    run: str
    step: int
    best_step: int
    best_quality: float


def fit(
    problem: Problem, plan: Plan, settings: TuneSettings, world: World, reporter: Reporter, workdir: Path
) -> Fitted:
    """Train a cell; afterwards the problem's module holds the best weights.

    Parameters
    ----------
    problem
        Its module holds the weights to start from.
    plan, settings
        What to train on, and how.
    world
        This process among all.
    reporter
        Told of progress; asked for a state to resume from. A state of another cell is ignored.
    workdir
        Folder for states; used by rank 0.

    Raises
    ------
    MedfilipError
        ``TRAINING_DIVERGED`` if loss or gradient stops being a number.
    """
    module = problem.module
    share_weights(module, world)
    optimizer = _optimizer(module, plan, settings)
    best_weights, best = _copy(module), Fitted()
    done, latest = 0, reporter.latest_checkpoint()
    if latest is not None and (resumed := _resume(latest, module, optimizer, plan.name)) is not None:
        progress, best_weights = resumed
        done, best = progress.step, Fitted(progress.best_step, progress.best_quality)
    losses: list[Tensor] = []
    for step in range(done, settings.steps):
        losses.append(_step(problem, plan, settings, optimizer, step, world))
        if (step + 1) % settings.evaluate_every and step + 1 < settings.steps:
            continue
        loss = _checked(losses)
        losses.clear()
        quality = problem.quality(plan.validation, predict(problem, plan.validation, world))
        if quality > best.quality:
            best_weights, best = _copy(module), Fitted(step + 1, quality)
        progress = _Progress(plan.name, step + 1, best.step, best.quality)
        state = _save(workdir, module, optimizer, best_weights, progress) if world.rank == 0 else None
        reporter.report({"step": float(step + 1), "loss": loss, "quality": quality}, state)
    module.load_state_dict(best_weights)
    module.eval()
    return best


def predict(problem: Problem, rows: Ints, world: World) -> Predicted:
    """Return the predictions of all rows on every process, each computed by one."""
    own = problem.predict(rows[rank_slice(len(rows), world)])
    if world.size == 1:
        return own
    found: Predicted = gather(torch.from_numpy(own).to(device_of(problem.module)), world).cpu().numpy()
    return found


def _step(
    problem: Problem, plan: Plan, settings: TuneSettings, optimizer: torch.optim.Optimizer, step: int, world: World
) -> Tensor:
    module = problem.module
    module.train()
    # A share with fewer images than a batch is one batch; then every step is an epoch.
    epoch, positions = batch_rows(len(plan.train), settings.global_batch, seed=plan.seed, step=step)
    batch_N = plan.train[positions]
    factor = schedule((step + 1) / settings.steps, settings.warmup)
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * group["rate"] * factor
    optimizer.zero_grad(set_to_none=True)
    loss = problem.loss(batch_N, rank_slice(len(batch_N), world), epoch)
    loss.backward()  # type: ignore[no-untyped-call]
    sum_gradients(module.parameters(), world)
    norm = clip_gradients(module.parameters(), settings.clip)
    optimizer.step()
    return torch.stack([total(loss.detach(), world), norm.to(loss.device)])


def _checked(losses: list[Tensor]) -> float:
    """Return the mean loss of some steps, each a pair of loss and norm of the gradient."""
    both = torch.stack(losses)
    if not bool(torch.isfinite(both).all()):
        raise MedfilipError(
            ErrorCode.TRAINING_DIVERGED,
            "The loss or its gradient is no number any more.",
            fix="Lower tune.learning_rate, or set tune.precision=fp32.",
        )
    return float(both[:, 0].mean())


def _optimizer(module: nn.Module, plan: Plan, settings: TuneSettings) -> torch.optim.AdamW:
    tower = getattr(module, "tower", None)
    slow = {id(one) for one in tower.parameters()} if plan.pretrained and isinstance(tower, nn.Module) else set()
    return adamw(module, slow, settings)


def _copy(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def _save(
    workdir: Path, module: nn.Module, optimizer: torch.optim.Optimizer, best: dict[str, Tensor], progress: _Progress
) -> Path:
    folder = workdir / f"step-{progress.step:08d}"
    contiguous = {name: value.contiguous() for name, value in module.state_dict().items()}
    write_files(
        folder,
        {
            WEIGHTS: safetensors.torch.save(contiguous),
            BEST: safetensors.torch.save({name: value.contiguous() for name, value in best.items()}),
            OPTIMIZER: safetensors.torch.save(moments_of(module, optimizer)),
            PROGRESS: json.dumps(asdict(progress)).encode(),
        },
    )
    return folder


def _resume(
    folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, name: str
) -> tuple[_Progress, dict[str, Tensor]] | None:
    files = read_files(folder, (WEIGHTS, BEST, OPTIMIZER, PROGRESS))
    progress = _Progress(**json.loads(files[PROGRESS]))
    if progress.run != name:
        return None
    module.load_state_dict(safetensors.torch.load(files[WEIGHTS]))
    restore_moments(module, optimizer, safetensors.torch.load(files[OPTIMIZER]))
    device = device_of(module)
    return progress, {key: value.to(device) for key, value in safetensors.torch.load(files[BEST]).items()}
