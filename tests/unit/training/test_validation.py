"""Zero-shot numbers of a checkpoint while it is trained, and the model that is published."""

from __future__ import annotations

import numpy as np
import pytest

from medfilip.evaluation.metrics import auroc
from medfilip.model.checkpoint import load_checkpoint
from medfilip.model.diagnoser import Diagnoser
from medfilip.model.distributed import World
from medfilip.training.loop import embed_units, fit, stated_truth
from medfilip.training.reporter import LocalReporter
from medfilip.training.validation import write_model, zero_shot_metrics
from tests.unit.training.events import numbers
from tests.unit.training.synthetic import Pictures, pair_rows, pair_set, settings, studies, train_data


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder, data, chosen = tmp_path_factory.mktemp("run"), train_data(), settings(report_steps=2)
    reporter = LocalReporter(folder, validate=lambda place: zero_shot_metrics(place, data.validation, chosen))
    result = fit(chosen, data, World(), reporter, folder)
    reporter.close()
    return result.folder, data, chosen, reporter


def test_the_numbers_are_means_of_the_areas_that_evaluation_computes(trained):
    checkpoint, data, chosen, _ = trained
    found = zero_shot_metrics(checkpoint, data.validation, chosen)
    diagnoser = Diagnoser.load(checkpoint)
    names, truth = stated_truth(data.validation, chosen)
    scores = diagnoser.score(embed_units(diagnoser, data.validation, chosen)[0], diagnoser.encode_labels(names))

    def mean(score):
        areas = (
            auroc(truth[known, at], score[known, at]) for at in range(len(names)) if (known := truth[:, at] >= 0).any()
        )
        areas = [area for area in areas if area is not None]
        return len(areas), np.mean(areas)

    assert found["zero_shot_categories"] == mean(scores.positive_NL)[0] > 0
    assert found["zero_shot_pos_auroc"] == pytest.approx(mean(scores.positive_NL)[1])
    assert found["zero_shot_pnc_auroc"] == pytest.approx(mean(scores.margins)[1])


def test_every_checkpoint_is_validated_where_a_run_without_ray_asks_for_it(trained):
    checkpoint, _, _, reporter = trained
    assert all("zero_shot_pnc_auroc" in entry for entry in reporter.history)
    logged = numbers(checkpoint.parent / "events")
    for entry in reporter.history:
        expected = entry["zero_shot_pnc_auroc"]
        assert logged["validation/zero_shot_pnc_auroc", int(entry["step"])] == pytest.approx(expected)


def test_a_split_without_both_classes_has_no_area(trained):
    checkpoint, _, chosen, _ = trained
    pixels, reports, _ = studies(1)
    pairs = pair_set(*pair_rows(reports), Pictures(pixels))
    assert zero_shot_metrics(checkpoint, pairs, chosen) == {"zero_shot_categories": 0.0}


def test_the_published_model_has_no_state_and_all_metrics(trained, tmp_path):
    checkpoint, _, _, _ = trained
    numbers = write_model(checkpoint, tmp_path, {"zero_shot_pnc_auroc": 0.75})
    assert numbers["zero_shot_pnc_auroc"] == 0.75 and "loss" in numbers
    assert not (tmp_path / "optimizer.safetensors").exists()
    assert load_checkpoint(tmp_path).fingerprint == load_checkpoint(checkpoint).fingerprint
    assert load_checkpoint(tmp_path).metrics["zero_shot_pnc_auroc"] == 0.75
