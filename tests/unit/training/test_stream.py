"""Batches in the background are the batches in the foreground; an average of weights; numbers that are read late."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from medfilip import ErrorCode, MedfilipError
from medfilip.model.distributed import World
from medfilip.training.average import Average
from medfilip.training.loop import build_model
from medfilip.training.meter import LOG_STEPS, Meter
from medfilip.training.stream import BatchStream, _without_helpers
from tests.unit.training.synthetic import settings, train_data


def same(one, other):
    for field in dataclasses.fields(one):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if isinstance(left, torch.Tensor):
            assert torch.equal(left, right), field.name
        elif field.name == "texts":
            assert left == right


@pytest.mark.parametrize("options", [{"prefetch": 3}, {"prefetch": 1, "decode_threads": 3}])
def test_what_is_prepared_ahead_is_what_would_have_been_built(options):
    data = train_data()
    tokenizer = build_model(settings(), data, World()).tokenizer
    plain = dict(BatchStream(data.train, tokenizer, settings(), World(1, 2)).steps(1, 5))
    ahead = dict(BatchStream(data.train, tokenizer, settings(**options), World(1, 2)).steps(1, 5))
    assert list(plain) == list(ahead) == [1, 2, 3, 4]
    for step, batch in plain.items():
        same(batch, ahead[step])


def test_leaving_early_ends_the_threads_and_an_error_arrives():
    data = train_data()
    tokenizer = build_model(settings(), data, World()).tokenizer
    stream = BatchStream(data.train, tokenizer, settings(prefetch=4), World())
    for _ in stream.steps(0, 4):
        break
    assert not any(thread.name.startswith(("batch", "decode")) for thread in threading.enumerate())
    data.train._images = None
    with pytest.raises(AttributeError):
        next(stream.steps(0, 4))


def test_the_average_follows_the_weights_and_can_be_lent():
    layer = torch.nn.Linear(2, 1)
    average = Average(layer, 0.9)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    average.update(1000)
    first = 1000 / 1001 and average.values["weight"].clone()
    for step in range(1001, 1200):
        average.update(step)
    assert (first < 1).any() and torch.allclose(average.values["weight"], torch.ones(1, 2), atol=1e-4)
    average.values["weight"].fill_(5.0)
    with average.applied():
        assert (layer.weight == 5).all()
    assert (layer.weight == 1).all() and (average.values["weight"] == 5).all()


def test_the_first_steps_of_an_average_forget_the_untrained_weights():
    layer = torch.nn.Linear(1, 1, bias=False)
    average = Average(layer, 0.999)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    for step in range(1, 40):
        average.update(step)
    assert average.values["weight"].item() > 0.98


def test_a_loss_that_is_no_number_is_found_within_a_few_steps():
    meter = Meter(World(), settings(), 100)
    good, bad = torch.tensor(1.0), torch.tensor(float("inf"))
    meter.take(1, good, good, 8, 0.0)
    meter.take(2, good, bad, 8, 0.0)
    with pytest.raises(MedfilipError, match="step 2 of 100") as caught:
        for step in range(3, 3 + LOG_STEPS):
            meter.take(step, good, good, 8, 0.0)
    assert caught.value.code == ErrorCode.TRAINING_DIVERGED


def test_losses_are_handed_over_once_and_speed_is_that_of_all_processes():
    meter = Meter(World(0, 2), settings(), 100)
    for step in range(3):
        meter.take(step, torch.tensor(float(step)), torch.tensor(2.0), 8, 0.0)
    recent = meter.recent()
    assert recent["loss"] == 2 and recent["gradient_norm"] == 2 and recent["studies_per_second"] > 0
    assert meter.losses() == [0, 1, 2] and meter.losses() == []
    speed = meter.speed()
    assert speed["run_studies_per_second"] * speed["run_seconds"] == pytest.approx(48)
    assert Meter(World(), settings(), 1).speed() == {}


def test_threads_that_build_batches_start_no_threads_for_their_operations():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with ThreadPoolExecutor(1, initializer=_without_helpers) as builder:
            assert builder.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
