"""The step: schedule, optimizer groups, and a loss that falls."""

from __future__ import annotations

import pytest
import torch

from medfilip.model.distributed import World
from medfilip.training.loop import build_model
from medfilip.training.step import Task, batch_loss, make_optimizer, schedule, train_step
from tests.unit.training.synthetic import settings, train_data


def test_the_schedule_rises_and_falls():
    assert schedule(0.05, 0.1) == pytest.approx(0.5)
    assert schedule(0.1, 0.1) == pytest.approx(1)
    assert schedule(0.55, 0.1) == pytest.approx(0.5)
    assert schedule(1.0, 0.1) == pytest.approx(0, abs=1e-12)
    assert schedule(0.0, 0.0) == 1


def test_norms_biases_embeddings_and_scale_do_not_decay():
    chosen, data = settings(), train_data()
    model = build_model(chosen, data, World())
    decayed, plain = make_optimizer(model, chosen).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (chosen.weight_decay, 0)
    assert all(parameter.ndim >= 2 for parameter in decayed["params"])
    ids = {id(parameter) for parameter in plain["params"]}
    assert {id(model.log_scale), id(model.bias)} <= ids
    assert len(decayed["params"]) + len(plain["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize("objective", ["soft_sigmoid", "soft_infonce", "infonce"])
def test_repeating_a_batch_lowers_its_loss(objective):
    chosen, data = settings(objective=objective), train_data()
    model = build_model(chosen, data, World())
    optimizer, task = make_optimizer(model, chosen), Task.of(chosen, data.ontology)
    batch = data.train.batch(range(8), epoch=0, settings=chosen)
    losses = [train_step(model, batch, optimizer, task, chosen, progress=0.3, world=World())["loss"] for _ in range(15)]
    assert losses[-1] < losses[0] * 0.9


def test_bfloat16_stays_close():
    chosen, data = settings(), train_data()
    model = build_model(chosen, data, World())
    batch, task = data.train.batch(range(8), epoch=0, settings=chosen), Task.of(chosen, data.ontology)
    with torch.no_grad():
        full = batch_loss(model, batch, task, World())
        half = batch_loss(model, batch, task, World(), bf16=True)
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.02)


def test_a_batch_without_findings_has_no_loss_and_no_broken_gradient():
    chosen, data = settings(), train_data()
    for row in data.train.rows:
        row["findings"] = []
    model = build_model(chosen, data, World())
    result = train_step(
        model, data.train.batch(range(4), epoch=0, settings=chosen), make_optimizer(model, chosen),
        Task.of(chosen, data.ontology), chosen, progress=0.5, world=World(),
    )  # fmt: skip
    assert result["loss"] == 0 and result["gradient_norm"] == 0
