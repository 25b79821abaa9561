"""The objectives over a global batch of any size: by blocks, over processes, with gradients in closed form.

The matrix of logits is never held: it is computed block by block (own images × some texts), each block once for the
loss and its gradient and, for the softmax objectives, once before for their normalisers. What remains in memory is one
block and the embeddings. Each process is responsible for the rows of its own images; the parts sum to the loss.

Two ways to bring the texts of other processes here give the same numbers:

``gather``
    Everyone holds the embeddings of all texts; one collective before, one after.
``ring``
    Text embeddings travel round the processes, and their gradient grows on the way, so that nobody holds more than two
    parts (the chunked loss of Zhai et al. 2023, section 3.3, here for all objectives).

Legend of tensor names: N own images, T texts of everyone, P texts of the part at hand, B texts of a block, D joint
dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from medfilip.model.distributed import World, gather, largest, lengths, pass_on, total
from medfilip.model.objectives import Objective, add_to_groups, bce, focus_of_groups

Exchange = Literal["gather", "ring"]
Targets = Callable[[slice], tuple[Tensor, Tensor]]
"""Texts (a slice of all of them) → targets and mask [N, B] of the own images."""


@dataclass(frozen=True)
class LossSettings:
    """How the loss is computed; nothing here but ``objective`` and ``focus`` changes its value.

    Attributes
    ----------
    objective
        What is computed.
    exchange
        How texts travel.
    chunk
        Texts of one block.
    focus
        Exponent of `medfilip.model.objectives.focus_weights`, for the pairwise objectives; 0 weighs all texts alike.
    """

    objective: Objective
    exchange: Exchange = "gather"
    chunk: int = 4096
    focus: float = 0.0


class Groups(NamedTuple):
    """What `LossSettings.focus` tells apart: the group of each text (of everyone's), and how many groups there are."""

    of_T: Tensor
    number: int


@dataclass(frozen=True)
class Gradients:
    """The loss of the whole batch, and this process's part of its gradients."""

    loss: Tensor
    image_ND: Tensor
    text_PD: Tensor
    scale: Tensor
    bias: Tensor


def contrastive_loss(
    image_ND: Tensor, text_PD: Tensor, scale: Tensor, bias: Tensor,
    targets: Targets, settings: LossSettings, world: World, groups: Groups | None = None,
) -> Tensor:  # fmt: skip
    """Compute the loss of the global batch, differentiably with respect to everything that is this process's own.

    Parameters
    ----------
    image_ND, text_PD
        Unit-length embeddings of the own images and texts; processes may hold different numbers of them.
    scale, bias
        Scalars: logits are ``scale · image · textᵀ + bias``.
    targets
        Gives targets and masks of the own images against a slice of all texts, in rank order. For ``infonce`` the
        targets mark own texts and the mask is not looked at.
    groups
        Needed for ``settings.focus``.

    Returns
    -------
    Tensor
        The same scalar on every process. After ``backward`` each process holds its part of every parameter's
        gradient: `medfilip.model.distributed.sum_gradients` adds them up.
    """
    loss: Tensor = _Contrastive.apply(image_ND, text_PD, scale, bias, targets, settings, world, groups)  # type: ignore[no-untyped-call]
    return loss


@torch.no_grad()
def contrastive_gradients(
    image_ND: Tensor, text_PD: Tensor, scale: Tensor, bias: Tensor,
    targets: Targets, settings: LossSettings, world: World, groups: Groups | None = None,
) -> Gradients:  # fmt: skip
    """Compute the loss and its gradients at once; see `contrastive_loss`."""
    batch = _Batch(image_ND, scale, bias, targets, settings.chunk)
    exchange: _Exchange = (_Ring if settings.exchange == "ring" and world.size > 1 else _Gather)(text_PD, world)
    sums = _Sums.zeros(image_ND)
    match settings.objective:
        case "soft_sigmoid" | "mse_bce":
            squared = settings.objective == "mse_bce"
            focus = _focus(batch, exchange, settings.focus, groups, world) if settings.focus and groups else None
            exchange.visit(lambda part: _pairwise(batch, part, sums, focus, squared=squared))
            # Known only now; nothing that was summed depends on it.
            factor = 1 / total(sums.weight, world).clamp(min=1e-6)
        case "soft_infonce" | "infonce":
            rows = _Rows.empty(image_ND)
            masked = settings.objective == "soft_infonce"
            exchange.visit(lambda part: _normalise(batch, part, rows, masked=masked))
            exchange.merge_columns()
            images = total((rows.target_N > 0).sum().to(image_ND.dtype), world).clamp(min=1)
            texts = exchange.columns_with_target().clamp(min=1)
            exchange.visit(lambda part: _softmax(batch, part, sums, rows, images, texts, masked=masked))
            factor = torch.ones_like(sums.weight)
    return Gradients(
        loss=total(sums.loss, world) * factor,
        image_ND=sums.image_ND * factor,
        text_PD=exchange.own_gradient() * factor,
        scale=sums.scale * factor,
        bias=sums.bias * factor,
    )


class _Contrastive(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, image_ND: Tensor, text_PD: Tensor, scale: Tensor, bias: Tensor,
        targets: Targets, settings: LossSettings, world: World, groups: Groups | None,
    ) -> Tensor:  # fmt: skip
        found = contrastive_gradients(image_ND, text_PD, scale, bias, targets, settings, world, groups)
        ctx.save_for_backward(found.image_ND, found.text_PD, found.scale, found.bias)
        return found.loss

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        return (*(gradient * upstream[0] for gradient in ctx.saved_tensors), None, None, None, None)


@dataclass
class _Part:
    """Some of the texts, where they begin among all, and what has been found out about them so far."""

    start: int
    text_PD: Tensor
    gradient_PD: Tensor
    normaliser_P: Tensor
    target_P: Tensor

    @classmethod
    def of(cls, start: int, text_PD: Tensor) -> _Part:
        return cls(
            start,
            text_PD,
            torch.zeros_like(text_PD),
            text_PD.new_full((len(text_PD),), float("-inf")),
            text_PD.new_zeros(len(text_PD)),
        )


@dataclass
class _Rows:
    """Of each own image: the logarithm of its softmax's denominator, and the sum of its targets."""

    normaliser_N: Tensor
    target_N: Tensor

    @classmethod
    def empty(cls, image_ND: Tensor) -> _Rows:
        return cls(image_ND.new_full((len(image_ND),), float("-inf")), image_ND.new_zeros(len(image_ND)))


@dataclass
class _Sums:
    """What the blocks add up to on this process."""

    loss: Tensor
    weight: Tensor
    image_ND: Tensor
    scale: Tensor
    bias: Tensor

    @classmethod
    def zeros(cls, image_ND: Tensor) -> _Sums:
        loss, weight, scale, bias = (image_ND.new_zeros(()) for _ in range(4))
        return cls(loss, weight, torch.zeros_like(image_ND), scale, bias)


@dataclass
class _Block:
    """One block of the matrix."""

    within: slice
    columns: slice
    dot_NB: Tensor
    logits_NB: Tensor
    target_NB: Tensor
    mask_NB: Tensor


@dataclass(frozen=True)
class _Batch:
    """Own images, what turns cosines into logits, and the targets."""

    image_ND: Tensor
    scale: Tensor
    bias: Tensor
    targets: Targets
    chunk: int

    def blocks(self, part: _Part) -> Iterator[_Block]:
        dtype = self.image_ND.dtype
        for begin in range(0, len(part.text_PD), self.chunk):
            within = slice(begin, min(begin + self.chunk, len(part.text_PD)))
            columns = slice(part.start + within.start, part.start + within.stop)
            target_NB, mask_NB = self.targets(columns)
            dot_NB = self.image_ND @ part.text_PD[within].T
            logits_NB = self.scale * dot_NB + self.bias
            yield _Block(within, columns, dot_NB, logits_NB, target_NB.to(dtype), mask_NB.to(dtype))

    def add(self, sums: _Sums, part: _Part, block: _Block, gradient_NB: Tensor) -> None:
        """Add what a block's gradient with respect to its logits means for embeddings, scale and bias."""
        sums.image_ND.addmm_(gradient_NB, self.scale * part.text_PD[block.within])
        part.gradient_PD[block.within] += gradient_NB.T @ (self.scale * self.image_ND)
        sums.scale += (gradient_NB * block.dot_NB).sum()
        sums.bias += gradient_NB.sum()


def _focus(batch: _Batch, exchange: _Exchange, exponent: float, groups: Groups, world: World) -> Tensor:
    """Return the weight of every text, from what the whole batch says about its group; [T]."""
    sums_3G = batch.image_ND.new_zeros(3, groups.number)

    def add(part: _Part) -> None:
        for block in batch.blocks(part):
            add_to_groups(
                sums_3G,
                bce(block.logits_NB, block.target_NB),
                block.target_NB,
                block.mask_NB,
                groups.of_T[block.columns],
            )

    exchange.visit(add)
    return focus_of_groups(total(sums_3G, world), exponent)[groups.of_T]


def _pairwise(batch: _Batch, part: _Part, sums: _Sums, focus_T: Tensor | None, *, squared: bool) -> None:
    for block in batch.blocks(part):
        if focus_T is not None:
            block.mask_NB = block.mask_NB * focus_T[block.columns]
        loss_NB = bce(block.logits_NB, block.target_NB)
        gradient_NB = block.logits_NB.sigmoid() - block.target_NB
        if squared:
            error_NB = block.logits_NB - block.target_NB
            loss_NB += error_NB.square()
            gradient_NB += 2 * error_NB
        sums.loss += (loss_NB * block.mask_NB).sum()
        sums.weight += block.mask_NB.sum()
        batch.add(sums, part, block, gradient_NB * block.mask_NB)


def _opened(block: _Block, *, masked: bool) -> tuple[Tensor, Tensor]:
    """Return logits and targets of a block with what is masked out of the softmax taken out."""
    if not masked:
        return block.logits_NB, block.target_NB
    closed_NB = block.mask_NB == 0
    return block.logits_NB.masked_fill(closed_NB, float("-inf")), block.target_NB.masked_fill(closed_NB, 0.0)


def _normalise(batch: _Batch, part: _Part, rows: _Rows, *, masked: bool) -> None:
    for block in batch.blocks(part):
        logits_NB, target_NB = _opened(block, masked=masked)
        rows.normaliser_N = torch.logaddexp(rows.normaliser_N, logits_NB.logsumexp(dim=1))
        rows.target_N += target_NB.sum(dim=1)
        if len(logits_NB):
            column_B = part.normaliser_P[block.within]
            part.normaliser_P[block.within] = torch.logaddexp(column_B, logits_NB.logsumexp(dim=0))
        part.target_P[block.within] += target_NB.sum(dim=0)


def _softmax(
    batch: _Batch, part: _Part, sums: _Sums, rows: _Rows, images: Tensor, texts: Tensor, *, masked: bool
) -> None:
    """Add the mean of both directions; ``images`` and ``texts`` are the rows and columns that have a target."""
    for block in batch.blocks(part):
        logits_NB, target_NB = _opened(block, masked=masked)
        gradient_NB = torch.zeros_like(logits_NB)
        ways = (
            (rows.normaliser_N[:, None], rows.target_N[:, None], images),
            (part.normaliser_P[None, block.within], part.target_P[None, block.within], texts),
        )
        for normaliser, target_sum, count in ways:
            counts = target_sum > 0
            share_NB = torch.where(counts, target_NB / target_sum.clamp(min=1e-30), 0.0)
            # A normaliser of −inf stands for a row without any pair: it has no target either.
            log_probability_NB = torch.where(counts, logits_NB - normaliser, float("-inf"))
            sums.loss -= (share_NB * log_probability_NB.masked_fill(share_NB == 0, 0.0)).sum() / (2 * count)
            gradient_NB += (log_probability_NB.exp() - share_NB) / (2 * count)
        batch.add(sums, part, block, gradient_NB)


class _Exchange(Protocol):
    """Brings all texts past the own images, part by part."""

    def visit(self, work: Callable[[_Part], None]) -> None:
        """Call ``work`` with every part once; what it writes into a part is there at the next visit."""
        ...

    def merge_columns(self) -> None:
        """Make the normalisers and target sums of texts those over the images of all processes."""
        ...

    def columns_with_target(self) -> Tensor:
        """Count the texts of all processes that have a target."""
        ...

    def own_gradient(self) -> Tensor:
        """Return the gradient of this process's own texts, summed over processes."""
        ...


class _Gather:
    def __init__(self, text_PD: Tensor, world: World) -> None:
        sizes = lengths(text_PD, world)
        self._world, self._all = world, _Part.of(0, gather(text_PD, world, sizes))
        self._own = slice(sum(sizes[: world.rank]), sum(sizes[: world.rank + 1]))

    def visit(self, work: Callable[[_Part], None]) -> None:
        work(self._all)

    def merge_columns(self) -> None:
        if self._world.size == 1:
            return
        # Relative to the largest of all processes, so that no exponential overflows.
        top_T = largest(self._all.normaliser_P.clone(), self._world).nan_to_num(neginf=0.0)
        self._all.normaliser_P = top_T + total((self._all.normaliser_P - top_T).exp(), self._world).log()
        total(self._all.target_P, self._world)

    def columns_with_target(self) -> Tensor:
        return (self._all.target_P > 0).sum().to(self._all.text_PD.dtype)

    def own_gradient(self) -> Tensor:
        return total(self._all.gradient_PD, self._world)[self._own]


class _Ring:
    def __init__(self, text_PD: Tensor, world: World) -> None:
        self._world, self._sizes = world, lengths(text_PD, world)
        self._starts = [sum(self._sizes[:rank]) for rank in range(world.size)]
        self._part = _Part.of(self._starts[world.rank], text_PD.contiguous())

    def visit(self, work: Callable[[_Part], None]) -> None:
        size = self._world.size
        for step in range(size):
            work(self._part)
            here, coming = ((self._world.rank - step - back) % size for back in (0, 1))
            part = self._part
            travelling = [part.text_PD, part.gradient_PD, part.normaliser_P, part.target_P]
            received = pass_on(travelling, self._world, (self._sizes[here], self._sizes[coming]))
            self._part = _Part(self._starts[coming], *received)

    def merge_columns(self) -> None:
        """Nothing to do: every part has met all images on its way and is home again."""

    def columns_with_target(self) -> Tensor:
        return total((self._part.target_P > 0).sum().to(self._part.text_PD.dtype), self._world)

    def own_gradient(self) -> Tensor:
        return self._part.gradient_PD
