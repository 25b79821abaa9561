"""Arms of an ablation, paired differences, and the page they end on."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from medfilip.evaluation.ablation import AblationResult, Arm, arms, compare
from medfilip.evaluation.ablation_page import write_ablation
from medfilip.evaluation.zero_shot import evaluate_zero_shot, macro_values
from medfilip.model.diagnoser import Scores


def test_factors_change_one_thing_and_the_grid_is_every_combination():
    factors, grid = arms("factors"), arms("grid")
    assert factors[0] == grid[0] == Arm() and factors[0].name == "default"
    assert all(
        sum(a != b for a, b in zip(vars(arm).values(), vars(Arm()).values(), strict=True)) == 1 for arm in factors[1:]
    )
    assert len(set(factors)) == len(factors) == 1 + 3 + 3 + 3
    assert len(set(grid)) == len(grid) == 4 * 4 * 4 and set(factors) <= set(grid)
    assert len({arm.name for arm in grid}) == len(grid)


def scores(seed, strength, truth):
    positive = strength * truth + np.random.default_rng(seed).normal(size=truth.shape)
    return Scores(("a", "b"), np.full(truth.shape, 0.5), ("none",) * 2, positive, np.zeros(truth.shape))


def corpus():
    truth = np.random.default_rng(0).integers(0, 2, (80, 2))
    return truth, [str(i // 2) for i in range(80)]


def values(given, truth, patients):
    return {name: macro_values(given, truth, patients, name, resamples=80) for name in ("pos_auroc", "pnc_auroc")}


def test_macro_values_are_those_of_the_evaluation():
    truth, patients = corpus()
    truth[:, 1] = 0  # a label without positives is in neither mean
    given = scores(1, 1.0, truth)
    found = values(given, truth, patients)["pos_auroc"]
    expected = evaluate_zero_shot(given, truth, patients, resamples=80).macro["pos_auroc"]
    assert found[0] == expected.value and np.percentile(found[1:], 97.5) == pytest.approx(expected.high)


def test_differences_are_paired():
    truth, patients = corpus()
    good, same, bad = scores(1, 2.0, truth), scores(1, 2.0, truth), scores(2, 0.5, truth)
    first, twin, worse = compare(
        {"default": [values(good, truth, patients)], "twin": [values(same, truth, patients)],
         "worse": [values(bad, truth, patients)]},
        {"default": ["f"], "twin": ["g"], "worse": ["h"]},
    )  # fmt: skip
    assert first.difference == {}
    assert twin.difference["pnc_auroc"].low == twin.difference["pnc_auroc"].high == 0  # unpaired it would be wide
    gap = worse.metrics["pnc_auroc"].value - first.metrics["pnc_auroc"].value
    assert worse.difference["pnc_auroc"].value == pytest.approx(gap) and worse.difference["pnc_auroc"].high < 0


def test_seeds_are_averaged_and_shown():
    truth, patients = corpus()
    both = [values(scores(seed, 1.0, truth), truth, patients) for seed in (1, 2)]
    (found,) = compare({"default": both}, {"default": ["f", "g"]})
    assert found.metrics["pos_auroc"].value == pytest.approx(np.mean(found.by_seed["pos_auroc"]))
    assert len(set(found.by_seed["pos_auroc"])) == 2


def test_the_page_says_everything_and_loads_nothing(tmp_path):
    truth, patients = corpus()
    rows = compare(
        {"default": [values(scores(1, 2.0, truth), truth, patients)],
         "similarity one_hot": [values(scores(2, 1.0, truth), truth, patients)]},
        {"default": ["f"], "similarity one_hot": ["g"]},
    )  # fmt: skip
    result = AblationResult(labels=("a", "b"), images=80, patients=40, seeds=(0,), resamples=80, arms=rows)
    page, numbers = write_ablation(tmp_path, result, synthetic=True)
    text = page.read_text()
    assert "similarity one_hot" in text and "<svg" in text and "Synthetic data" in text and "<script" not in text
    assert not re.search(r"(?:src|href)=[\"'](?!#)|@import", text)
    assert (
        json.loads(numbers.read_text())["arms"][1]["metrics"]["pos_auroc"]["value"]
        == rows[1].metrics["pos_auroc"].value
    )
