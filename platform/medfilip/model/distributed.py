"""Several processes that compute the loss and the gradients of one.

Every process embeds its part of the global batch and computes the part of the loss that belongs to its own images,
against the texts of everyone. The parts *sum* to the loss of the whole batch, and so do the gradients: summing
parameter gradients over processes leaves exactly what one process would have computed.

Gradients are summed here, after the backward pass, instead of by a wrapper around the model: the same code then runs
in one process, under torchrun and under Ray Train.

Legend of tensor names: X rows of one process, D any further dimension.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch import distributed as dist

from medfilip.core.errors import ErrorCode, MedfilipError

_BUCKET = 25 << 20  # elements of one all-reduce: large enough for bandwidth, small next to a model


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


@contextmanager
def process_group(environment: Mapping[str, str] = os.environ) -> Iterator[World]:
    """Join the processes that torchrun started, with gloo or, one GPU each, nccl; without torchrun be the only one.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` with more processes on a machine than it has GPUs, if it has any.
    """
    if "TORCHELASTIC_RUN_ID" not in environment:
        yield World.current()
        return
    backend = "gloo"
    if torch.cuda.is_available():
        processes, gpus = int(environment["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if processes > gpus:
            raise MedfilipError(
                ErrorCode.CONFIG_INVALID,
                f"--nproc-per-node {processes} is above this machine's {gpus} GPUs; each process takes one.",
                fix=f"Start {gpus} processes, or hide the GPUs with CUDA_VISIBLE_DEVICES= to train on the CPU.",
            )
        torch.cuda.set_device(int(environment["LOCAL_RANK"]))
        backend = "nccl"
    dist.init_process_group(backend)
    try:
        yield World.current()
    finally:
        dist.destroy_process_group()


def check_same_start(found: str | None, world: World) -> None:
    """Refuse processes that see different states: some would start anew while others go on.

    Parameters
    ----------
    found
        What names the state that this process sees; ``None`` if it sees none.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID``.
    """
    if world.size == 1:
        return
    everyone: list[str | None] = [None] * world.size
    dist.all_gather_object(everyone, found)
    if len(set(everyone)) > 1:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            "The processes find different checkpoints in --out.",
            fix="Give a folder that all machines share.",
        )


def lengths(part_XD: Tensor, world: World) -> list[int]:
    """Return the number of rows that each process holds, in rank order."""
    if world.size == 1:
        return [len(part_XD)]
    own = torch.tensor([len(part_XD)], device=part_XD.device)
    found = torch.empty(world.size, dtype=own.dtype, device=own.device)
    dist.all_gather_into_tensor(found, own)
    return [int(length) for length in found.tolist()]


def gather(part_XD: Tensor, world: World, sizes: Sequence[int] | None = None) -> Tensor:
    """Concatenate the parts of all processes in rank order, without gradient; the parts may differ in length.

    ``sizes`` are the lengths, if the caller knows them already.
    """
    if world.size == 1:
        return part_XD
    sizes = lengths(part_XD, world) if sizes is None else sizes
    # Collectives want equal shapes: pad to the longest part, cut afterwards.
    padded = part_XD.new_zeros((max(sizes), *part_XD.shape[1:]))
    padded[: len(part_XD)] = part_XD
    parts = [torch.empty_like(padded) for _ in range(world.size)]
    dist.all_gather(parts, padded)
    return torch.cat([part[:length] for part, length in zip(parts, sizes, strict=True)])


def total(value: Tensor, world: World) -> Tensor:
    """Sum a tensor over processes, in place, and return it."""
    if world.size > 1:
        dist.all_reduce(value)
    return value


def largest(value: Tensor, world: World) -> Tensor:
    """Take the elementwise maximum over processes, in place, and return it."""
    if world.size > 1:
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return value


def pass_on(tensors: Sequence[Tensor], world: World, sizes: Sequence[int]) -> list[Tensor]:
    """Send tensors to the next process of a ring and return those of the previous one.

    Parameters
    ----------
    tensors
        Each has as many rows as the part that is on its way through this process.
    sizes
        Rows of that part, and of the one that comes in.
    """
    coming = [tensor.new_empty((sizes[1], *tensor.shape[1:])) for tensor in tensors]
    following, previous = (world.rank + 1) % world.size, (world.rank - 1) % world.size
    operations = [dist.P2POp(dist.isend, tensor.contiguous(), following) for tensor in tensors if tensor.numel()]
    operations += [dist.P2POp(dist.irecv, tensor, previous) for tensor in coming if tensor.numel()]
    for request in dist.batch_isend_irecv(operations) if operations else ():
        request.wait()
    return coming


def share_weights(model: nn.Module, world: World) -> None:
    """Give every process the parameters of rank 0: equal seeds do not promise equal last bits on unequal machines."""
    if world.size > 1:
        for parameter in model.parameters():
            dist.broadcast(parameter.data, src=0)


def sum_gradients(parameters: Iterable[nn.Parameter], world: World) -> None:
    """Replace every gradient by its sum over processes; a parameter unused here counts with zeros."""
    if world.size == 1:
        return
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in trainable:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in trainable if parameter.grad is not None]
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        for gradient, part in zip(bucket, torch.split(flat, [one.numel() for one in bucket]), strict=True):
            gradient.copy_(part.view_as(gradient))


def _buckets(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    buckets: list[list[Tensor]] = []
    room = 0
    for tensor in tensors:
        if not buckets or tensor.numel() > room:
            buckets.append([])
            room = _BUCKET
        buckets[-1].append(tensor)
        room -= tensor.numel()
    return buckets
