"""The step: schedule, optimizer groups, and a loss that falls."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import ViTConfig, ViTModel

from medfilip.model.distributed import World
from medfilip.model.encoders import checkpoint_activations
from medfilip.model.objectives import OBJECTIVES
from medfilip.training.loop import build_model
from medfilip.training.step import (
    Task,
    accumulate,
    augmented,
    batch_loss,
    clip_gradients,
    make_optimizer,
    ranking_share,
    schedule,
    train_step,
)
from tests.unit.training.synthetic import SIZE, Pictures, pair_rows, pair_set, settings, studies, train_data


def test_the_schedule_rises_and_falls():
    assert schedule(0.05, 0.1) == pytest.approx(0.5)
    assert schedule(0.1, 0.1) == pytest.approx(1)
    assert schedule(0.55, 0.1) == pytest.approx(0.5)
    assert schedule(1.0, 0.1) == pytest.approx(0, abs=1e-12)
    assert schedule(0.0, 0.0) == 1


def test_details_are_ranked_after_what_they_are_details_of():
    assert [ranking_share(progress) for progress in (0.0, 0.3, 1.0)] == [0, 0, 1]
    assert ranking_share(0.65) == pytest.approx(0.5)


def test_norms_biases_embeddings_and_scale_do_not_decay():
    chosen, data = settings(), train_data()
    model = build_model(chosen, data, World())
    decayed, plain = make_optimizer(model, chosen).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"]) == (chosen.weight_decay, 0)
    assert all(parameter.ndim >= 2 for parameter in decayed["params"])
    ids = {id(parameter) for parameter in plain["params"]}
    assert {id(model.log_scale), id(model.bias)} <= ids
    assert len(decayed["params"]) + len(plain["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_repeating_a_batch_lowers_its_loss(objective):
    chosen, data = settings(objective=objective), train_data()
    model = build_model(chosen, data, World())
    optimizer, task = make_optimizer(model, chosen), Task.of(chosen, data.ontology)
    batch = data.train.batch(range(8), epoch=0, settings=chosen)
    losses = [train_step(model, batch, optimizer, task, chosen, progress=0.3, world=World())[0] for _ in range(15)]
    assert losses[-1] < losses[0] * 0.9


def test_ranking_adds_the_mean_over_ranked_pairs_to_soft_objectives_alone():
    chosen, data = settings(hard_negatives=3), train_data()
    model = build_model(chosen, data, World())
    batch = data.train.batch(range(8), epoch=0, settings=chosen)
    assert len(batch.ranked_R3) > 1

    def loss(**changes):
        with torch.no_grad():
            return float(batch_loss(model, batch, Task.of(settings(**changes), data.ontology), World()))

    with torch.no_grad():
        image_ND = model.encode_image(augmented(batch, chosen.augment, "cpu"), batch.unit_I, len(batch))
        text_TD = model.encode_text(batch.texts)
        logits_NT = model.scale() * image_ND @ text_TD.T
    apart = [float(logits_NT[unit, altered] - logits_NT[unit, own]) for unit, own, altered in batch.ranked_R3.tolist()]
    expected = sum(math.log1p(math.exp(value)) for value in apart) / len(apart)
    assert loss(ranking=2.0) - loss(ranking=0.0) == pytest.approx(2 * expected, rel=1e-4)
    assert loss(ranking=2.0, objective="infonce") == loss(ranking=0.0, objective="infonce")


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
    rows, texts = pair_rows([[] for _ in range(4)])
    pairs = pair_set(rows, texts, Pictures(studies(4)[0]))
    model = build_model(chosen, data, World())
    loss, norm = train_step(
        model, pairs.batch(range(4), epoch=0, settings=chosen), make_optimizer(model, chosen),
        Task.of(chosen, data.ontology), chosen, progress=0.5, world=World(),
    )  # fmt: skip
    assert loss == 0 and norm == 0


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_cached_gradients_are_those_of_the_whole_batch(objective):
    chosen, data = settings(objective=objective), train_data()
    task = Task.of(chosen, data.ontology)
    found = []
    for micro_batch in (0, 1, 3):
        model = build_model(chosen, data, World())
        batch = data.train.batch(range(8), epoch=0, settings=chosen)
        loss = accumulate(model, batch, task, World(), micro_batch=micro_batch)
        found.append([loss, *(value.grad for value in model.parameters())])
    for other in found[1:]:
        for one, wanted in zip(other, found[0], strict=True):
            torch.testing.assert_close(one, wanted, rtol=1e-5, atol=1e-5)


def test_clipping_scales_to_the_limit_and_tells_the_norm_before():
    values = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))]
    values[0].grad, values[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert clip_gradients(values, 1.0) == pytest.approx(5)
    assert torch.cat([value.grad for value in values]).tolist() == pytest.approx([0.6, 0.0, 0.8], abs=1e-5)
    assert clip_gradients(values, 10.0) == pytest.approx(1)
    assert values[1].grad.item() == pytest.approx(0.8, abs=1e-5)


def test_a_study_of_two_images_is_their_mean():
    chosen, data = settings(), train_data()
    rows, texts = pair_rows(studies(3)[1])
    rows[1] |= {"study_id": "s0", "view": "lateral", "findings": rows[0]["findings"]}
    pairs = pair_set(rows, texts, Pictures(studies(3)[0]))
    model = build_model(chosen, data, World()).eval()
    pooled = model.encode_image(pairs.pixels([0, 1, 2]), torch.tensor([0, 0, 1]), 2)
    raw = model.image(pairs.pixels([0, 1, 2]))
    expected = torch.nn.functional.normalize(torch.stack([(raw[0] + raw[1]) / 2, raw[2]]), dim=1)
    torch.testing.assert_close(pooled, expected)
    for micro_batch in (0, 1):
        model.zero_grad()
        batch = pairs.batch([0, 1], epoch=3, settings=chosen, training=False)
        loss = accumulate(model, batch, Task.of(chosen, data.ontology), World(), micro_batch=micro_batch)
        assert loss > 0 and model.image.project.weight.grad.abs().sum() > 0


def test_recomputed_activations_give_the_same_gradients():
    chosen, data = settings(), train_data()
    batch, task = data.train.batch(range(6), epoch=0, settings=chosen), Task.of(chosen, data.ontology)
    found = []
    for recompute in (False, True):
        model = build_model(chosen, data, World()).train()
        if recompute:
            checkpoint_activations(model.image)
            checkpoint_activations(model.text)
        accumulate(model, batch, task, World())
        found.append([value.grad for value in model.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_a_frozen_backbone_stays_as_it_is(tmp_path):
    vision = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=SIZE, patch_size=8
    )
    ViTModel(vision).save_pretrained(tmp_path)
    config = settings().model.model_copy(update={"vision": str(tmp_path)})
    chosen, data = settings(model=config, backbone_rate=0.0), train_data()
    model = build_model(chosen, data, World()).train()
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = make_optimizer(model, chosen)
    batch = data.train.batch(range(6), epoch=0, settings=chosen)
    train_step(model, batch, optimizer, Task.of(chosen, data.ontology), chosen, progress=0.3, world=World())
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert not any(name.startswith("image.backbone") for name in moved)
    assert {"image.project.weight", "bias"} <= moved
    slow = make_optimizer(model, chosen.model_copy(update={"backbone_rate": 0.1}))
    assert {group["rate"] for group in slow.param_groups} == {1.0}, "what is frozen is in no group"
