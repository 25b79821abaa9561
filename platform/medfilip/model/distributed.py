"""Several processes that compute the loss and the gradients of one.

Every process embeds its part of the global batch, gathers everyone's embeddings and computes the loss of the *whole*
batch. The gradient that reaches an embedding through the gathering is summed over processes, so each process holds
`size` times the gradient of its own embeddings; averaging parameter gradients over processes undoes that factor and
leaves exactly what one process would have computed, for the towers as for the scale and the bias.

Gradients are averaged here, after the backward pass, instead of by a wrapper around the model: the same code then
runs in one process, under torchrun and under Ray Train.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist


@dataclass(frozen=True)
class World:
    """The rank of this process and the number of processes."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        """Read the process group that torchrun or Ray Train set up; one process if there is none."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()


def gather(part_XD: Tensor, world: World) -> Tensor:
    """Concatenate the parts of all processes in rank order, differentiably; the parts may differ in length."""
    if world.size == 1:
        return part_XD
    gathered: Tensor = _Gather.apply(part_XD, world)  # type: ignore[no-untyped-call]
    return gathered


def share_weights(model: nn.Module, world: World) -> None:
    """Give every process the parameters of rank 0: equal seeds do not promise equal last bits on unequal machines."""
    if world.size > 1:
        for parameter in model.parameters():
            dist.broadcast(parameter.data, src=0)


def average_gradients(parameters: Iterable[nn.Parameter], world: World) -> None:
    """Replace every gradient by its mean over processes; a parameter unused here counts with zeros."""
    if world.size == 1:
        return
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trainable:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in trainable if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world.size
    for gradient, mean in zip(gradients, torch.split(flat, [gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part_XD: Tensor, world: World) -> Tensor:
        lengths = _lengths(part_XD, world)
        # Collectives want equal shapes: pad to the longest part, cut afterwards.
        padded = part_XD.new_zeros((max(lengths), *part_XD.shape[1:]))
        padded[: len(part_XD)] = part_XD
        parts = [torch.empty_like(padded) for _ in range(world.size)]
        dist.all_gather(parts, padded)
        ctx.start, ctx.length = sum(lengths[: world.rank]), len(part_XD)
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.start : ctx.start + ctx.length], None


def _lengths(part: Tensor, world: World) -> list[int]:
    own = torch.tensor([len(part)], device=part.device)
    lengths = [torch.empty_like(own) for _ in range(world.size)]
    dist.all_gather(lengths, own)
    return [int(length) for length in lengths]
