"""Groups are compared on the same labels; what is too small is named."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medfilip.evaluation.subgroups import age_band, evaluate_subgroups
from medfilip.model.diagnoser import Scores


def corpus(seed=0, images=120):
    rng = np.random.default_rng(seed)
    sex = np.where(np.arange(images) % 2, "F", "M")
    truth = rng.integers(0, 2, (images, 2))
    noise = np.where(sex == "F", 3.0, 0.5)[:, None]  # a model that serves women badly
    positive = truth + noise * rng.normal(size=truth.shape)
    scores = Scores(("a", "b"), np.full(truth.shape, 0.5), ("none",) * 2, positive, np.zeros(truth.shape))
    return scores, truth, [str(i) for i in range(images)], sex


def test_the_gap_is_found_with_its_interval():
    scores, truth, patients, sex = corpus()
    (found,) = evaluate_subgroups(scores, truth, patients, {"sex": sex.tolist()}, resamples=100)
    by_group = {item.group: item for item in found.groups}
    for group, item in by_group.items():
        rows = sex == group
        expected = np.mean([roc_auc_score(truth[rows, at], scores.margins[rows, at]) for at in (0, 1)])
        assert item.pnc_auroc.value == pytest.approx(expected) and item.images == 60
    assert found.gap.value == pytest.approx(by_group["M"].pnc_auroc.value - by_group["F"].pnc_auroc.value)
    assert found.gap.low > 0


def test_a_label_that_one_group_lacks_is_compared_in_none():
    scores, truth, patients, sex = corpus()
    truth[sex == "F", 1] = 0
    (found,) = evaluate_subgroups(scores, truth, patients, {"sex": sex.tolist()}, resamples=20)
    assert found.labels == ("a",)


def test_small_groups_are_named_and_unknown_ones_are_in_none():
    scores, truth, patients, sex = corpus()
    groups = [None if i < 10 else "O" if i < 14 else value for i, value in enumerate(sex.tolist())]
    (found,) = evaluate_subgroups(scores, truth, patients, {"sex": groups}, resamples=20)
    assert found.left_out == {"O": 4} and sum(item.images for item in found.groups) == 106


def test_a_column_that_tells_nobody_apart_is_left_out():
    scores, truth, patients, _ = corpus()
    assert evaluate_subgroups(scores, truth, patients, {"sex": ["F"] * 120, "view": [None] * 120}) == ()


@pytest.mark.parametrize(("years", "band"), [(None, None), (0, "0-17"), (17, "0-17"), (18, "18-39"), (90, "80+")])
def test_age_bands(years, band):
    assert age_band(years) == band
