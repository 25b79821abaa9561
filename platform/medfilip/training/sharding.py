"""Weights, gradients and moments divided among processes (FSDP2), for models that do not fit as a whole.

Every block of a backbone is collected just before it is used and divided again behind it, which also overlaps the
communication with the computation. Checkpoints always hold whole tensors: they load on any number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from medfilip.model.distributed import World
from medfilip.model.dual_encoder import DualEncoder


def shard(model: DualEncoder, world: World) -> None:
    """Divide the towers among all processes, in place; scale and bias stay whole."""
    mesh = init_device_mesh(model.bias.device.type, (world.size,))
    for tower in (model.image, model.text):
        for block in [*_blocks(tower.backbone), tower]:
            divided = fully_shard(block, mesh=mesh)
            assert isinstance(divided, FSDPModule)
            # The parts of the loss sum to the whole; the usual mean would divide it by the number of processes.
            divided.set_gradient_divide_factor(1.0)
            divided.set_force_sum_reduction_for_comms(enable=True)  # a sum that every backend knows


def whole(value: Tensor) -> Tensor:
    """Return a tensor that may be divided as one on the host; with divided ones every process must ask for it."""
    full: Tensor = value.full_tensor() if isinstance(value, DTensor) else value
    return full.detach().cpu().contiguous()


def like(value: Tensor, model: Tensor) -> Tensor:
    """Place a whole tensor as another one is: on its device, divided if it is, and in the same order in memory.

    A fused optimizer walks through weights and moments by address: of a convolution whose channels lie last it would
    take moments in another order for those of other weights.
    """
    placed = value.to(model.device)
    if isinstance(model, DTensor):
        placed = distribute_tensor(placed, model.device_mesh, model.placements)
    return torch.empty_like(model, dtype=value.dtype, requires_grad=False).copy_(placed)


@torch.no_grad()
def load_whole(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load whole weights into a model that may be divided.

    Raises
    ------
    RuntimeError
        If names or shapes do not fit.
    """
    own = model.state_dict()
    if own.keys() != weights.keys():
        raise RuntimeError(f"unexpected or missing weights: {sorted(own.keys() ^ weights.keys())[:5]}")
    for name, value in own.items():
        value.copy_(like(weights[name], value))


def _blocks(backbone: nn.Module) -> list[Any]:
    """Find the layers of a backbone: the entries of its module lists that have parameters of their own."""
    found: list[Any] = []
    for module in backbone.modules():
        if isinstance(module, nn.ModuleList):
            found += [
                entry
                for entry in module
                if not isinstance(entry, nn.ModuleList) and any(True for _ in entry.parameters())
            ]
    inner = {id(below) for entry in found for below in entry.modules() if below is not entry}
    return [entry for entry in found if id(entry) not in inner]
