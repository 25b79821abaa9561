"""Whole tensors of a checkpoint, placed as a running model has them."""

from __future__ import annotations

import torch
from torch import nn

from medfilip.training.sharding import like, whole


def test_a_tensor_is_placed_in_the_memory_order_of_its_model():
    weight = nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last).weight
    stored = whole(torch.randn_like(weight))
    assert stored.is_contiguous() and not weight.is_contiguous()
    placed = like(stored, weight)
    assert placed.stride() == weight.stride() and not placed.requires_grad
    assert torch.equal(placed, stored)


def test_a_fused_optimizer_goes_on_from_stored_moments_as_from_its_own():
    torch.manual_seed(0)
    start, gradients = torch.randn(6, 4, 3, 3), torch.randn(2, 6, 4, 3, 3)

    def step(value, moments, at):
        weight = nn.Parameter(value.clone(memory_format=torch.channels_last))
        optimizer = torch.optim.AdamW([weight], fused=True)
        optimizer.state[weight] = {name: like(part, weight) if part.ndim else part for name, part in moments.items()}
        for gradient in gradients[at]:
            weight.grad = gradient.contiguous(memory_format=torch.channels_last)
            optimizer.step()
        return weight.detach(), {name: whole(part) for name, part in optimizer.state[weight].items()}

    first = step(start, {}, slice(0, 1))
    assert torch.equal(step(*first, slice(1, 2))[0], step(start, {}, slice(0, 2))[0])
