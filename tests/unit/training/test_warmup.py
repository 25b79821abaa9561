"""The warm-up of the text tower: statements agree, negations oppose, strangers are indifferent."""

from __future__ import annotations

import pytest
import torch

from medfilip.model.distributed import World
from medfilip.similarity.codes import FindingTensors
from medfilip.training.loop import build_model
from medfilip.training.step import Task
from medfilip.training.warmup import geometry_loss
from tests.unit.training.synthetic import CODEBOOK, settings, train_data


def test_the_loss_by_hand():
    task = Task.of(settings(), CODEBOOK.ontology)
    said = [("nodule", "present"), ("nodule", "absent"), ("cardiomegaly", "present")]
    rows = [CODEBOOK.encode({"category": category, "certainty": certainty}) for category, certainty in said]
    findings = FindingTensors.from_rows(rows, CODEBOOK)
    ideal = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    assert geometry_loss(ideal, findings, task).item() == pytest.approx(0)
    same = torch.tensor([[1.0, 0.0]] * 3)
    # related: both contradictions are off by 2; unrelated: four pairs are off by 1, three are texts with themselves
    assert geometry_loss(same, findings, task).item() == pytest.approx(4 + 4 / 7)


def test_untrained_embeddings_of_a_sample_are_centred():
    chosen, data = settings(), train_data()
    model = build_model(chosen, data, World())
    with torch.no_grad():
        assert model.image(data.train.pixels(range(20))).mean(dim=0).abs().max() < 1e-4
