"""Objectives against float64 loops and numerical gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from medfilip.model.objectives import focus_of_groups, focus_weights, infonce, mse_bce, soft_infonce, soft_sigmoid


def example(seed=0, n=4, t=6):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, t, generator=generator, dtype=torch.float64) * 3
    target = torch.rand(n, t, generator=generator, dtype=torch.float64)
    mask = (torch.rand(n, t, generator=generator, dtype=torch.float64) > 0.3).double()
    return logits, target, mask


def test_soft_sigmoid_against_a_loop():
    logits, target, mask = example()
    total = 0.0
    for z, y, m in zip(logits.flatten().tolist(), target.flatten().tolist(), mask.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-z))
        total += m * -(y * math.log(p) + (1 - y) * math.log(1 - p))
    assert soft_sigmoid(logits, target, mask).item() == pytest.approx(total / mask.sum().item(), rel=1e-12)


def test_the_optimum_of_soft_sigmoid_is_the_target():
    _, target, mask = example()
    logits = torch.logit(target).requires_grad_()
    soft_sigmoid(logits, target, mask).backward()
    assert logits.grad.abs().max() < 1e-12


def test_mse_bce_against_a_loop_and_its_two_terms_pull_apart():
    logits, target, mask = example()
    total = 0.0
    for z, y, m in zip(logits.flatten().tolist(), target.flatten().tolist(), mask.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-z))
        total += m * ((z - y) ** 2 - (y * math.log(p) + (1 - y) * math.log(1 - p)))
    assert mse_bce(logits, target, mask).item() == pytest.approx(total / mask.sum().item(), rel=1e-12)
    ones = torch.ones(1, 1, dtype=torch.float64)
    gradients = []
    for optimum in (1.0, 20.0):  # of the squared error, and nearly of the cross entropy
        logit = (ones * optimum).requires_grad_()
        mse_bce(logit, ones, ones).backward()
        gradients.append(logit.grad.item())
    assert gradients[0] < -0.2 and gradients[1] > 30


def test_soft_infonce_against_a_loop():
    logits, target, mask = example()

    def one_way(z, y, m):
        losses = []
        for row in range(len(z)):
            open_ = [i for i in range(z.shape[1]) if m[row, i]]
            total = sum(y[row, i].item() for i in open_)
            if total > 0:
                norm = math.log(sum(math.exp(z[row, i].item()) for i in open_))
                losses.append(-sum(y[row, i].item() / total * (z[row, i].item() - norm) for i in open_))
        return sum(losses) / len(losses)

    expected = (one_way(logits, target, mask) + one_way(logits.T, target.T, mask.T)) / 2
    assert soft_infonce(logits, target, mask).item() == pytest.approx(expected, rel=1e-12)


def test_infonce_with_one_text_an_image_is_clips():
    logits, _, _ = example(n=5, t=5)
    labels = torch.arange(5)
    entropy = torch.nn.functional.cross_entropy
    expected = (entropy(logits, labels) + entropy(logits.T, labels)) / 2
    torch.testing.assert_close(infonce(logits, torch.eye(5, dtype=torch.float64)), expected)


@pytest.mark.parametrize("objective", [soft_sigmoid, mse_bce, soft_infonce])
def test_gradients(objective):
    logits, target, mask = example()
    assert gradcheck(lambda z: objective(z, target, mask), logits.requires_grad_())


@pytest.mark.parametrize("objective", [soft_sigmoid, mse_bce, soft_infonce])
def test_masked_pairs_have_no_say_and_all_masked_is_zero(objective):
    logits, target, mask = example()
    changed = torch.where(mask > 0, target, 1 - target)
    logits.requires_grad_()
    loss = objective(logits, target, mask)
    torch.testing.assert_close(loss, objective(logits, changed, mask))
    loss.backward()
    assert (logits.grad[mask == 0] == 0).all()
    nothing = objective(logits, target, torch.zeros_like(mask))
    nothing.backward()
    assert nothing.item() == 0 and logits.grad.isfinite().all()


def test_rows_without_targets_are_left_out_of_infonce():
    logits, _, _ = example(n=2, t=3)
    own = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert infonce(logits.requires_grad_(), own).isfinite()


def test_focus_takes_weight_from_what_is_learned_and_leaves_the_total():
    generator = torch.Generator().manual_seed(0)
    target = (torch.rand(200, 4, generator=generator) < 0.3).double()
    logits = torch.full_like(target, -0.85)  # knows the frequency and nothing else
    logits[:, :2] = 8 * target[:, :2] - 4  # the first two texts, one category, are learned
    mask, group = torch.ones_like(target), torch.tensor([1, 1, 0, 0])

    weight = focus_weights(logits, target, mask, group, 2, 2.0)

    assert weight[0] == weight[1] < 0.02 and weight[2] == weight[3] > 1.9
    assert (mask * weight).sum().item() == pytest.approx(mask.sum().item())
    assert torch.equal(focus_weights(logits, target, mask, group, 2, 0.0), torch.ones(4, dtype=torch.float64))
    assert focus_weights(logits, target, 0 * mask, group, 2, 2.0).isfinite().all()


def test_focus_stands_sums_whose_rounding_puts_a_mean_above_one():
    weight = torch.tensor([3.0, 5.0])
    target = torch.nextafter(weight, torch.tensor(9.0))  # as sums in another order have it
    sums_3G = torch.stack([torch.tensor([0.4, 0.2]), target, weight])
    assert (target / weight).gt(1).any() and focus_of_groups(sums_3G, 2.0).isfinite().all()
