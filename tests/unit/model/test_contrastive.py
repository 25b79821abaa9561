"""The blockwise objectives against the plain ones in float64: values, gradients, blocks of any size."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck

from medfilip.model.contrastive import Groups, LossSettings, contrastive_loss
from medfilip.model.distributed import World
from medfilip.model.objectives import OBJECTIVES, focus_weights, objective_loss


def example(seed=0, n=5, t=7, d=4):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    image, text = (torch.nn.functional.normalize(normal(rows, d), dim=1) for rows in (n, t))
    target = torch.rand(n, t, generator=generator, dtype=torch.float64)
    target[:, 1] = 0  # a text that describes nothing
    mask = (torch.rand(n, t, generator=generator) > 0.3).double()
    mask[2] = 0  # an image nobody speaks about
    scale, bias = torch.tensor(7.0, dtype=torch.float64), torch.tensor(-1.5, dtype=torch.float64)
    return [value.requires_grad_() for value in (image, text, scale, bias)], target, mask


def targets_of(objective, target, mask):
    if objective == "infonce":
        target, mask = (target > 0.7).double(), torch.ones_like(mask)
    return target, mask, lambda columns: (target[:, columns], mask[:, columns])


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_values_and_gradients_are_those_of_the_definition(objective, chunk):
    leaves, target, mask = example()
    target, mask, targets = targets_of(objective, target, mask)
    image, text, scale, bias = leaves
    expected = objective_loss(objective, scale * image @ text.T + bias, target, mask)
    wanted = torch.autograd.grad(expected, leaves)
    found = contrastive_loss(*leaves, targets, LossSettings(objective, chunk=chunk), World())
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for one, other in zip(torch.autograd.grad(found, leaves), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("objective", ["soft_sigmoid", "mse_bce"])
def test_focus_weighs_texts_by_their_group(objective, chunk):
    leaves, target, mask = example()
    image, text, scale, bias = leaves
    groups = Groups(torch.tensor([3, 0, 1, 0, 3, 1, 0]), 5)
    logits = scale * image @ text.T + bias
    target[:, [0, 4]] = logits[:, [0, 4]].sigmoid().detach()  # one group is learned
    weight_T = focus_weights(logits, target, mask, *groups, 1.5)
    assert weight_T[0] == weight_T[4] < weight_T[1]
    expected = objective_loss(objective, logits, target, mask * weight_T)
    settings = LossSettings(objective, chunk=chunk, focus=1.5)
    found = contrastive_loss(*leaves, targets_of(objective, target, mask)[2], settings, World(), groups)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for one, other in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradients_are_numerically_right(objective):
    leaves, target, mask = example(seed=1, n=3, t=4)
    _, _, targets = targets_of(objective, target, mask)
    assert gradcheck(lambda *x: contrastive_loss(*x, targets, LossSettings(objective, chunk=3), World()), leaves)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_batch_without_texts_or_targets_is_zero_and_has_no_broken_gradient(objective):
    leaves, _, _ = example()
    for texts, value in ((0, 0.0), (7, 0.0)):
        some = [leaves[0], leaves[1][:texts], leaves[2], leaves[3]]
        nothing = torch.full((5, texts), value, dtype=torch.float64)
        loss = contrastive_loss(
            *some, lambda columns, m=nothing: (m[:, columns], m[:, columns]), LossSettings(objective), World()
        )
        gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
        assert loss.item() == 0
        assert all(gradient is None or (gradient == 0).all() for gradient in gradients)


def test_masked_pairs_get_no_gradient():
    leaves, target, mask = example()
    changed = torch.where(mask > 0, target, 1 - target)
    losses = [
        contrastive_loss(*leaves, lambda c, t=t: (t[:, c], mask[:, c]), LossSettings("soft_sigmoid"), World())
        for t in (target, changed)
    ]
    assert torch.equal(*losses)
    assert torch.equal(torch.autograd.grad(losses[0], leaves[0])[0][2], torch.zeros(4, dtype=torch.float64))
