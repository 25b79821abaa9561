"""The training loop of a student: plain torch, the loss on answers alone, exact resume.

Learning rate and order are functions of the step, and nothing else is drawn; a run that was killed goes on from its
last state and ends with the very weights of an undisturbed one (on the same machine and the same number of threads).

The batch of a step is the same for any number of processes. Each takes its slice, its loss is the part of the batch's
mean that its own answer tokens make, and the gradients are summed: a run may go on with more or fewer processes.

Legend of tensor names: B rows, T tokens, A answer tokens of a batch, V vocabulary, D width.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everybody uses

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint
from medfilip.distillation.dataset import Row
from medfilip.distillation.encoding import IGNORED, Encoded, epoch_batches
from medfilip.distillation.prepare import Prepared
from medfilip.distillation.replying import StudentEngine
from medfilip.distillation.settings import DistillSettings
from medfilip.distillation.student import make_student, open_base
from medfilip.extraction.prompt import PromptTemplate, load_prompt
from medfilip.findings.ontology import load_ontology
from medfilip.model.distributed import World, share_weights, sum_gradients, total
from medfilip.training.order import rank_slice

STATE, PROGRESS = "state.safetensors", "progress.json"
_BETAS = (0.9, 0.95)
_SLOTS = ("step", "exp_avg", "exp_avg_sq")

Report = Callable[[Mapping[str, float]], None]


@dataclass
class Run:
    """A run under way."""

    settings: DistillSettings
    model: Any
    tokenizer: Any
    prompt: PromptTemplate
    train: Encoded
    validation: Encoded
    validation_rows: list[Row]
    name: str
    device: str
    world: World = field(default_factory=World)
    step: int = 0

    @property
    def padding(self) -> int:
        """Token that fills a batch."""
        padding = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if padding is None else padding)


def start_run(settings: DistillSettings, prepared: Prepared, *, device: str, world: World | None = None) -> Run:
    """Make or open the student of a prepared training set; see `make_student` and `open_base` for what is raised.

    Parameters
    ----------
    world
        This process among those that train; the only one by default.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    tokenizer, prompt, seed = prepared.tokenizer, load_prompt(settings.prompt), settings.seed
    if settings.base:
        model = open_base(settings.base, rank=settings.lora_rank, prompt=settings.prompt, seed=seed)
    else:
        model = make_student(settings.student, tokenizer, prompt=settings.prompt, seed=seed)
    name = fingerprint({"settings": settings.semantic(), "data": prepared.key})
    train, validation, held_out = prepared.train, prepared.validation, prepared.held_out
    return Run(
        settings, model.to(device), tokenizer, prompt, train, validation, held_out, name, device, world or World()
    )  # fmt: skip


def fit(
    run: Run,
    folder: Path,
    report: Report,
    *,
    after_step: Callable[[int], None] | None = None,
    after_state: Callable[[int], None] | None = None,
) -> None:
    """Train to the end, from the last state in ``folder`` if there is one; all processes must see the same one.

    Parameters
    ----------
    report
        Told of numbers every ``report_steps`` steps and at the end, in the process of rank 0.
    after_step
        Called with the number of steps that are done.
    after_state
        Called in every process when rank 0 has written a state, with the number of steps that are in it.

    Raises
    ------
    MedfilipError
        ``TRAINING_DIVERGED`` if the loss is no number; ``CONFIG_INVALID`` if the state is another run's.
    """
    settings = run.settings
    optimizer = _optimizer(run)
    run.step = _resume(run, optimizer, folder)
    # Equal seeds do not promise equal last bits on unequal machines.
    share_weights(torch.nn.ParameterList([parameter for _, parameter in _trained(run)]), run.world)
    batches = _Batches(settings, run.train.lengths)
    steps = batches.total
    forward = torch.compile(run.model, dynamic=True) if settings.compile else run.model
    meter = _Meter(run)
    run.model.train()
    while run.step < steps:
        epoch, rows_B = batches.at(run.step)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * schedule(run.step, steps, settings.warmup)
        meter.take(*backward(run, forward, rows_B))
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), settings.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        run.step += 1
        if run.step % settings.report_steps == 0 or run.step == steps:
            numbers = meter.read()
            if run.world.rank == 0:
                report({"epoch": epoch, "step": run.step, **numbers, **_validate(run)})
            meter = _Meter(run)
        if run.step % settings.state_steps == 0 and run.step < steps:
            if run.world.rank == 0:
                _save(run, optimizer, folder)
            if after_state is not None:
                after_state(run.step)
        if after_step is not None:
            after_step(run.step)
    run.model.eval()


def backward(run: Run, forward: Any, rows_B: NDArray[np.int64]) -> tuple[Tensor, int]:
    """Leave the gradient of a whole batch in every process.

    Parameters
    ----------
    forward
        The model, compiled or not.
    rows_B
        The batch, the same in all processes.

    Returns
    -------
    loss
        This process's part: the parts sum to the mean over the answer tokens of the batch.
    tokens
        Padded tokens that this process computed.
    """
    answers = int((run.train.lengths_of(rows_B) - run.train.prompts_N[rows_B]).sum())
    own = rows_B[rank_slice(len(rows_B), run.world)]
    loss, tokens = torch.zeros((), device=run.device), 0
    if len(own):  # a batch may have fewer rows than there are processes
        ids_BT, targets_BT = _tensors(run, run.train, own)
        with _precision(run.device):
            loss = answer_loss(forward, ids_BT, targets_BT, of=answers)
        loss.backward()  # type: ignore[no-untyped-call]
        tokens = ids_BT.numel()
    sum_gradients(run.model.parameters(), run.world)
    return loss.detach(), tokens


class _Meter:
    """Adds up loss and speed between two reports; every process reads it at the same steps."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._losses: list[Tensor] = []
        self._tokens, self._since = 0, time.perf_counter()

    def take(self, loss: Tensor, tokens: int) -> None:
        """Take what `backward` returned of a step."""
        self._losses.append(loss)
        self._tokens += tokens

    def read(self) -> dict[str, float]:
        """Return mean loss and tokens a second of all processes.

        Raises
        ------
        MedfilipError
            ``TRAINING_DIVERGED`` if the loss is no number.
        """
        run = self._run
        loss = float(total(torch.stack(self._losses).mean(), run.world))
        tokens = float(total(torch.tensor(float(self._tokens), device=run.device), run.world))
        if not math.isfinite(loss):
            raise MedfilipError(
                ErrorCode.TRAINING_DIVERGED,
                f"The loss is no number before step {run.step}.",
                fix="Lower learning_rate, or raise warmup.",
            )
        return {"loss": loss, "tokens_per_s": tokens / (time.perf_counter() - self._since)}


def count_steps(settings: DistillSettings, lengths_N: NDArray[np.int64]) -> int:
    """Return the steps of a run on rows of these lengths."""
    return _Batches(settings, lengths_N).total


def answer_loss(model: Any, ids_BT: Tensor, targets_BT: Tensor, *, of: int | None = None) -> Tensor:
    """Return the mean cross entropy of answer tokens; only their states go through the vocabulary.

    Parameters
    ----------
    of
        Answer tokens of the batch that these rows are a part of: the part of its mean that is theirs is returned.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    states_BTD = base.model(input_ids=ids_BT, use_cache=False).last_hidden_state
    answers_BT = targets_BT != IGNORED
    logits_AV = base.lm_head(states_BTD[answers_BT])
    logits_AV, targets_A = logits_AV.float(), targets_BT[answers_BT]
    if of is None:
        return F.cross_entropy(logits_AV, targets_A)
    return F.cross_entropy(logits_AV, targets_A, reduction="sum") / of


def schedule(step: int, total: int, warmup: float) -> float:
    """Return the share of the learning rate at a step: a linear rise, then half a cosine down to nothing."""
    rise = int(warmup * total)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, total - rise)))


class _Batches:
    """The batches of all epochs, one epoch in memory."""

    def __init__(self, settings: DistillSettings, lengths_N: NDArray[np.int64]) -> None:
        self._lengths_N, self._settings = lengths_N, settings
        sizes = [len(self._epoch(epoch)) for epoch in range(settings.epochs)]
        self._ends = np.cumsum(sizes)
        self.total = int(self._ends[-1]) if not settings.max_steps else min(settings.max_steps, int(self._ends[-1]))
        self._held: tuple[int, list[NDArray[np.int64]]] = (-1, [])

    def at(self, step: int) -> tuple[int, NDArray[np.int64]]:
        """Return epoch and rows of a step of the run."""
        epoch = int(np.searchsorted(self._ends, step, side="right"))
        if self._held[0] != epoch:
            self._held = (epoch, self._epoch(epoch))
        return epoch, self._held[1][step - (int(self._ends[epoch - 1]) if epoch else 0)]

    def _epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        return epoch_batches(self._lengths_N, self._settings.batch_tokens, seed=self._settings.seed, epoch=epoch)


def _tensors(run: Run, encoded: Encoded, rows_B: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    ids_BT, targets_BT = (torch.from_numpy(array) for array in encoded.batch(rows_B, run.padding))
    if run.device == "cpu":
        return ids_BT, targets_BT
    return tuple(t.pin_memory().to(run.device, non_blocking=True) for t in (ids_BT, targets_BT))  # type: ignore[return-value]


def _precision(device: str) -> AbstractContextManager[Any]:
    return torch.autocast("cuda", torch.bfloat16) if device.startswith("cuda") else nullcontext()


def _optimizer(run: Run) -> torch.optim.Optimizer:
    trained = [parameter for parameter in run.model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": run.settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=run.settings.learning_rate, betas=_BETAS, fused=run.device.startswith("cuda")
    )  # fmt: skip


@torch.no_grad()
def _validate(run: Run) -> dict[str, float]:
    """Return the loss of validation rows, and the share of them that are replied to exactly."""
    run.model.eval()
    losses, counts = [], []
    for rows_B in epoch_batches(run.validation.lengths, run.settings.batch_tokens, seed=0, epoch=0):
        ids_BT, targets_BT = _tensors(run, run.validation, rows_B)
        with _precision(run.device):
            losses.append(float(answer_loss(run.model, ids_BT, targets_BT)))
        counts.append(int((targets_BT != IGNORED).sum()))
    asked = run.validation_rows[: run.settings.exact_rows]
    engine = StudentEngine(run.model, run.tokenizer, run.prompt, load_ontology())
    with _precision(run.device):
        replies = engine.replies([(row.text, row.context) for row in asked])
    exact = sum(reply == row.reply for (reply, _), row in zip(replies, asked, strict=True)) / len(asked)
    run.model.train()
    return {"validation_loss": float(np.average(losses, weights=counts)), "exact": exact}


def _save(run: Run, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Write the state and, last, which step it is of; a kill in between leaves the one before."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"weight.{name}": value for name, value in _trained(run)}
    for name, parameter in _trained(run):
        tensors |= {f"{slot}.{name}": value for slot, value in optimizer.state[parameter].items()}
    file = f"{run.step:08d}-{STATE}"
    _replace(folder / file, safetensors.torch.save({n: t.detach().contiguous().cpu() for n, t in tensors.items()}))
    _replace(folder / PROGRESS, json.dumps({"step": run.step, "run": run.name, "file": file}).encode())
    for old in folder.glob(f"*-{STATE}"):
        if old.name != file:
            old.unlink()


def _resume(run: Run, optimizer: torch.optim.Optimizer, folder: Path) -> int:
    if not (folder / PROGRESS).is_file():
        return 0
    progress = json.loads((folder / PROGRESS).read_bytes())
    if progress["run"] != run.name:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"The state in {folder} belongs to a run with other settings or data.",
            fix="Use the settings it was started with, or another --out.",
        )
    tensors = safetensors.torch.load((folder / progress["file"]).read_bytes())
    fused = bool(optimizer.defaults.get("fused"))
    for name, parameter in _trained(run):
        with torch.no_grad():
            parameter.copy_(tensors[f"weight.{name}"])
        moved = {slot: tensors[f"{slot}.{name}"] for slot in _SLOTS}
        # The counter of steps lies where the optimizer would have put it: with the weights only if it is fused.
        optimizer.state[parameter] = {
            slot: value if slot == "step" and not fused else value.to(run.device) for slot, value in moved.items()
        }
    return int(progress["step"])


def _trained(run: Run) -> list[tuple[str, Tensor]]:
    return [(name, parameter) for name, parameter in run.model.named_parameters() if parameter.requires_grad]


def _replace(file: Path, content: bytes) -> None:
    part = file.with_name(f"{file.name}.part")
    with part.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(file)
