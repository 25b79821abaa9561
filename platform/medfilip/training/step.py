"""One optimisation step as a function of model, batch and settings; nothing here knows where it runs.

Legend of tensor names: I images, N studies, T texts, U distinct texts, F findings, R ranked pairs, D joint dimension.
What is counted over all processes is called ``everyone``; the rest is this process's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from medfilip.findings.codes import Codebook
from medfilip.findings.ontology import Ontology
from medfilip.model.contrastive import Groups, LossSettings, Targets, contrastive_loss
from medfilip.model.distributed import World, gather, largest, lengths, sum_gradients, total
from medfilip.model.dual_encoder import DualEncoder
from medfilip.model.objectives import ranking
from medfilip.model.tokenizer import Tokenizer, Tokens
from medfilip.similarity.codes import FindingTensors
from medfilip.similarity.tables import VIEWS, SimilarityTables, SimilarityWeights, build_tables
from medfilip.similarity.targets import Targets as SimilarityTargets
from medfilip.training.augment import augment
from medfilip.training.data import Batch
from medfilip.training.settings import AugmentSettings, TrainSettings

_TOKENS_MULTIPLE = 8  # widths of matrix units; fewer shapes for a compiled text tower
_RANKING_FROM = 0.3
_TEXTS_A_STUDY = 8  # distinct texts that count as one study when a batch is embedded in parts
Embed = Callable[[Sequence[str]], Tensor]
"""Texts → unit-length embeddings [T, D] of an encoder that is not trained."""


@dataclass(frozen=True)
class Task:
    """What is optimised: the objective and the targets it compares with.

    Attributes
    ----------
    embed
        The frozen text encoder of ``text_cosine``.
    ranking
        Weight of `medfilip.model.objectives.ranking`, of which the mean over all pairs is added.
    """

    loss: LossSettings
    weights: SimilarityWeights
    tables: SimilarityTables
    augment: AugmentSettings
    embed: Embed | None = None
    ranking: float = 0.0

    @classmethod
    def of(
        cls,
        settings: TrainSettings,
        ontology: Ontology,
        device: torch.device | str = "cpu",
        *,
        silence_C: Tensor | None = None,
    ) -> Task:
        """Build the similarity tables of an ontology on a device, with what `medfilip.training.pairs.silence` found."""
        tables = build_tables(Codebook.of(ontology), settings.similarity)
        if silence_C is not None:
            tables = replace(tables, silence_C=silence_C)
        loss = LossSettings(settings.objective, settings.exchange, settings.loss_chunk, settings.focus)
        # The authors' objective and the baseline stay what they are.
        ranked = settings.ranking if settings.objective.startswith("soft_") else 0.0
        return cls(loss, settings.similarity, tables.to(device), settings.augment, ranking=ranked)


def batch_loss(model: DualEncoder, batch: Batch, task: Task, world: World, *, bf16: bool = False) -> Tensor:
    """Compute the loss of the **global** batch, of which ``batch`` is this process's part.

    Every process returns the same value; after `medfilip.model.distributed.sum_gradients` every process holds the
    gradients that one process with the whole batch would have.
    """
    prepared = _Prepared.of(model, batch, task, world, bf16=bf16)
    image_ND = prepared.images(slice(0, len(batch)))
    text_UD = prepared.texts(slice(0, prepared.distinct))
    return prepared.loss(image_ND, text_UD)


def accumulate(
    model: DualEncoder, batch: Batch, task: Task, world: World, *, micro_batch: int = 0, bf16: bool = False
) -> Tensor:
    """Add this process's part of the gradients of the global batch to the parameters; return the loss.

    With ``micro_batch`` the embeddings are computed in parts without keeping activations, the loss gives the gradient
    of each embedding, and each part is embedded once more to carry it on (gradient caching; Gao et al., RepL4NLP
    2021): memory is that of one part, the gradients are those of the whole.
    """
    prepared = _Prepared.of(model, batch, task, world, bf16=bf16)
    image_parts = _parts(len(batch), micro_batch, world)
    text_parts = _parts(prepared.distinct, micro_batch * _TEXTS_A_STUDY, world)
    if len(image_parts) == len(text_parts) == 1:
        loss = prepared.loss(prepared.images(image_parts[0]), prepared.texts(text_parts[0]))
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()
    with torch.no_grad():
        image_ND = torch.cat([prepared.images(part) for part in image_parts])
        text_UD = torch.cat([prepared.texts(part) for part in text_parts])
    image_ND, text_UD = image_ND.requires_grad_(), text_UD.requires_grad_()
    loss = prepared.loss(image_ND, text_UD)
    loss.backward()  # type: ignore[no-untyped-call]
    for embed, parts, cached in (
        (prepared.images, image_parts, image_ND.grad),
        (prepared.texts, text_parts, text_UD.grad),
    ):
        for part in parts:
            embedded = embed(part)
            gradient = torch.zeros_like(embedded) if cached is None else cached[part]
            torch.autograd.backward(embedded, gradient)
    return loss.detach()


def tokens_of(batch: Batch, tokenizer: Tokenizer) -> Tokens:
    """Tokenise the texts of a batch; without any, one distinct text that none of them is, so that the tower runs."""
    tokens = tokenizer.tokens(batch.texts or [""], multiple=_TOKENS_MULTIPLE)
    return tokens if batch.texts else replace(tokens, position_T=tokens.position_T[:0])


def augmented(batch: Batch, settings: AugmentSettings, device: torch.device | str) -> Tensor:
    """Return the images of a batch on a device, augmented if they are to be; float32 [I, 1, S, S]."""
    pixels_I1SS = batch.pixels_I1SS.to(device, non_blocking=True)
    if not batch.augmented:
        return pixels_I1SS
    return augment(pixels_I1SS, batch.seed_I.to(device), settings, batch.flipped_I.to(device))


def train_step(
    model: DualEncoder,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    task: Task,
    settings: TrainSettings,
    *,
    progress: float,
    world: World,
) -> tuple[Tensor, Tensor]:
    """Make one step and return its loss and the norm of its gradient, on the device; ``progress`` runs from 0 to 1.

    Whether they are numbers is the caller's to check: to look at them here would make the device wait for the host.
    """
    factor = schedule(progress, settings.warmup)
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * group["rate"] * factor
    optimizer.zero_grad(set_to_none=True)
    bf16 = settings.precision == "bf16"
    task = replace(task, ranking=task.ranking * ranking_share(progress))
    loss = accumulate(model, batch, task, world, micro_batch=settings.micro_batch, bf16=bf16)
    whole = [value for value in model.parameters() if value.requires_grad and not isinstance(value, DTensor)]
    sum_gradients(whole, world)
    norm = clip_gradients(model.parameters(), settings.clip)
    optimizer.step()
    return loss, norm


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Scale gradients down to a norm of at most ``limit``, whole and sharded ones together; return the norm before."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return torch.zeros(())
    sharded = [gradient for gradient in gradients if isinstance(gradient, DTensor)]
    whole = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    norms = []
    for group in (whole, sharded):
        if group:
            norm = nn.utils.get_total_norm(group)
            norms.append(norm.full_tensor() if isinstance(norm, DTensor) else norm)
    total: Tensor = torch.stack(norms).norm()
    factor = (limit / (total + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_([one.to_local() if isinstance(one, DTensor) else one for one in gradients], factor)
    return total


def schedule(progress: float, warmup: float) -> float:
    """Return the factor of the learning rate: a linear rise over ``warmup``, then half a cosine down to 0."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / max(1 - warmup, 1e-9)))


def ranking_share(progress: float) -> float:
    """Return the share of the weight of the ranking at a moment of the training: details come after what they are of.

    Measured on 2,400 phantoms after 10 epochs (`small`, 128 px, seed 0; zero-shot AUROC, and the choice among the
    severities of what is there, where chance is .32): without a ranking .871 and .28; with a weight of .5 from the
    first step on .806 and .46, of .15 .852 and .51; with .4 that grows over the last 70 % of the steps .865 and .51.
    """
    return max(0.0, (progress - _RANKING_FROM) / (1 - _RANKING_FROM))


def make_optimizer(model: DualEncoder, settings: TrainSettings) -> torch.optim.AdamW:
    """Build AdamW: no decay on norms, biases, embeddings and the scale; pretrained backbones at their own rate."""
    pretrained = {
        id(parameter)
        for name, tower in ((settings.model.vision, model.image), (settings.model.text, model.text))
        if name is not None
        for parameter in tower.backbone.parameters()
    }
    return adamw(model, pretrained, settings)


class Rates(Protocol):
    """What `adamw` is told."""

    @property
    def learning_rate(self) -> float:
        """Peak learning rate."""
        ...

    @property
    def backbone_rate(self) -> float:
        """Factor of it for what was trained before; 0 freezes that."""
        ...

    @property
    def weight_decay(self) -> float:
        """Decay of matrices."""
        ...


def adamw(model: nn.Module, pretrained: Collection[int], settings: Rates) -> torch.optim.AdamW:
    """Build AdamW; parameters whose ``id`` is in ``pretrained`` learn at their own rate, or are frozen."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        slow = id(parameter) in pretrained
        if slow and not settings.backbone_rate:
            parameter.requires_grad = False
        if parameter.requires_grad:
            decayed = parameter.ndim >= 2 and "embeddings" not in name
            groups.setdefault((decayed, slow), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": groups[decayed, slow],
                "weight_decay": settings.weight_decay if decayed else 0.0,
                "rate": settings.backbone_rate if slow else 1.0,
            }
            for decayed, slow in sorted(groups, reverse=True)
        ],
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
        # As CLIP. With less, a gradient that is nothing but rounding moves its weight as far as any other, and runs
        # that differ in the order of a sum drift apart.
        eps=1e-6,
        fused=True,
    )


def _parts(length: int, size: int, world: World) -> list[slice]:
    """Cut a batch into parts; every process makes as many, since sharded weights are collected in each."""
    count = -(-length // size) if size else 1
    rounds = int(largest(torch.tensor([max(count, 1)]), world)) if size and world.size > 1 else max(count, 1)
    return [slice(length * at // rounds, length * (at + 1) // rounds) for at in range(rounds)]


@dataclass(frozen=True)
class _Prepared:
    """A batch on the device, with the targets of the global batch: all that does not depend on the weights."""

    model: DualEncoder
    pixels_I1SS: Tensor
    starts: Sequence[int]
    unit_I: Tensor
    tokens: Tokens
    targets: Targets
    groups: Groups
    ranked_R3: Tensor
    task: Task
    world: World
    bf16: bool

    @classmethod
    def of(cls, model: DualEncoder, batch: Batch, task: Task, world: World, *, bf16: bool) -> _Prepared:
        device = model.bias.device
        pixels_I1SS = augmented(batch, task.augment, device)
        tokens = (batch.tokens or tokens_of(batch, model.tokenizer)).to(device)
        targets, groups = _targets(batch, task, world, device)
        # On the host, since parts are cut there: the images of study n are [starts[n], starts[n + 1]).
        starts = [0, *torch.bincount(batch.unit_I, minlength=len(batch)).cumsum(0).tolist()]
        ranked_R3, unit_I = batch.ranked_R3.to(device), batch.unit_I.to(device)
        return cls(model, pixels_I1SS, starts, unit_I, tokens, targets, groups, ranked_R3, task, world, bf16)

    @property
    def distinct(self) -> int:
        """Number of distinct texts."""
        return len(self.tokens.ids_UK)

    def images(self, part: slice) -> Tensor:
        """Embed some studies; none of them still runs the tower, as sharded weights ask for."""
        first, last = part.start, max(part.stop, part.start + 1)
        begin, end = self.starts[first], self.starts[last]
        pooled = end - begin > last - first
        with self._autocast():
            embedded = self.model.encode_image(
                self.pixels_I1SS[begin:end], self.unit_I[begin:end] - first if pooled else None, last - first
            )
        return embedded.float()[: part.stop - part.start]

    def texts(self, part: slice) -> Tensor:
        """Embed some of the distinct texts."""
        first, last = part.start, max(part.stop, part.start + 1)
        every = torch.arange(last - first, device=self.tokens.ids_UK.device)
        with self._autocast():
            embedded = self.model.encode_tokens(
                Tokens(self.tokens.ids_UK[first:last], self.tokens.mask_UK[first:last], every)
            )
        return embedded.float()[: part.stop - part.start]

    def loss(self, image_ND: Tensor, text_UD: Tensor) -> Tensor:
        """Compute the loss of the global batch from this process's embeddings."""
        text_TD = text_UD[self.tokens.position_T]
        scale, bias = self.model.scale(), self.model.bias
        loss = contrastive_loss(image_ND, text_TD, scale, bias, self.targets, self.task.loss, self.world, self.groups)
        return loss + self.task.ranking * self._ranking(image_ND, text_TD, scale) if self.task.ranking else loss

    def _ranking(self, image_ND: Tensor, text_TD: Tensor, scale: Tensor) -> Tensor:
        """Return the mean over everyone's ranked pairs; each process holds the gradient of its own."""
        unit_R, own_R, altered_R = self.ranked_R3.unbind(dim=1)
        own, altered = (scale * (image_ND[unit_R] * text_TD[at_R]).sum(dim=1) for at_R in (own_R, altered_R))
        part = ranking(own, altered) / total(scale.new_tensor(float(len(unit_R))), self.world).clamp(min=1)
        return part + (total(part.detach().clone(), self.world) - part.detach())

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.pixels_I1SS.device.type, dtype=torch.bfloat16, enabled=self.bf16)


def _targets(batch: Batch, task: Task, world: World, device: torch.device) -> tuple[Targets, Groups]:
    """Bring the codes of everyone's findings together; return the targets of the own images, and texts by category."""
    view_N, owner_F = batch.view_N.to(device), batch.owner_F.to(device)
    studies, findings = lengths(view_N, world), lengths(owner_F, world)
    everyone = sum(studies)
    first = sum(studies[: world.rank])
    # Owners and told findings are positions within this process's part; both move by what lies before it. Altered
    # texts belong to nobody: a row behind all studies.
    owner_F = torch.where(owner_F < len(batch), owner_F + first, everyone)
    told_T = batch.told_T.to(device) + sum(findings[: world.rank])
    unseen = torch.full((1,), VIEWS.index("unknown"), device=device)
    embedding_FD = None
    if task.weights.mode == "text_cosine" and task.embed is not None:
        embedding_FD = gather(task.embed(batch.finding_texts), world, findings)
    everything, everyones_told_T = gather(batch.findings.packed().to(device), world, findings), gather(told_T, world)
    unpacked = FindingTensors.unpacked(everything)
    matrix = SimilarityTargets.of(
        unpacked,
        gather(owner_F, world, findings),
        everyone + 1,
        everyones_told_T,
        tables=task.tables,
        weights=task.weights,
        view_N=torch.cat([gather(view_N, world, studies), unseen]),
        embedding_FD=embedding_FD,
    )
    groups = Groups(unpacked.category_T[everyones_told_T], len(task.tables.silence_C))
    rows = slice(first, first + len(batch))
    if task.loss.objective == "infonce":

        def own(columns: slice) -> tuple[Tensor, Tensor]:
            own_NB = matrix.own(rows, columns).float()
            return own_NB, torch.ones_like(own_NB)

        return own, groups
    return lambda columns: matrix.block(rows, columns), groups
