"""The linear probe: a tower that stays as it is, strengths from validation alone, unknowns left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from medfilip.model.config import ModelConfig
from medfilip.model.encoders import build_vision
from medfilip.transfer.probe import features, fit_probe, kind_of, macro_auroc
from medfilip.transfer.settings import ProbeSettings
from tests.support.hub_models import save_vision

RNG = np.random.default_rng(0)
TRUTH = (RNG.random((90, 2)) < 0.5).astype(np.int64)
FEATURES = RNG.normal(size=(90, 6))
FEATURES[:, :2] += TRUTH * 1.5
ROWS = (np.arange(40), np.arange(40, 60), np.arange(60, 90))


def test_a_frozen_tower_does_not_change_by_a_bit(tmp_path):
    tower, _ = build_vision(ModelConfig(vision=save_vision("resnet", tmp_path), image_size=32), pretrained=True)
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    assert any("running_mean" in name for name in before)
    tower.train()
    found = features(tower, torch.randn(5, 1, 32, 32), "pooled")
    assert found.shape == (5, 2 * 16) and not found.requires_grad
    after = tower.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert features(tower, torch.randn(5, 1, 32, 32), "embedding").shape == (5, 128)


def test_scores_are_those_of_scikit_learn():
    settings = ProbeSettings(strengths=(0.3,))
    found = fit_probe(FEATURES, TRUTH, ["a", "b"], ROWS, settings)
    scaler = StandardScaler().fit(FEATURES[:40])
    for at in range(2):
        model = LogisticRegression(C=0.3, max_iter=1000).fit(scaler.transform(FEATURES[:40]), TRUTH[:40, at])
        np.testing.assert_allclose(found.score_NL[:, at], model.decision_function(scaler.transform(FEATURES[60:])))
    assert found.strength == 0.3 and not found.untrained and not found.unconverged
    assert found.quality is not None and macro_auroc(TRUTH[60:], found.score_NL) > 0.7


def test_the_strength_is_chosen_on_validation_whatever_the_test_truth():
    first = fit_probe(FEATURES, TRUTH, ["a", "b"], ROWS, ProbeSettings())
    turned = TRUTH.copy()
    turned[60:] = 1 - turned[60:]
    second = fit_probe(FEATURES, turned, ["a", "b"], ROWS, ProbeSettings())
    assert second.strength == first.strength and second.quality == first.quality
    np.testing.assert_array_equal(second.score_NL, first.score_NL)
    best = {
        strength: fit_probe(FEATURES, TRUTH, ["a", "b"], ROWS, ProbeSettings(strengths=(strength,))).quality
        for strength in ProbeSettings().strengths
    }
    assert first.quality == max(best.values())


def test_unknowns_are_left_out_of_their_label_alone():
    truth = TRUTH.copy()
    truth[:10, 0] = -1
    settings = ProbeSettings(strengths=(1.0,))
    found = fit_probe(FEATURES, truth, ["a", "b"], ROWS, settings)
    scaler = StandardScaler().fit(FEATURES[:40])
    model = LogisticRegression(C=1.0, max_iter=1000).fit(scaler.transform(FEATURES[10:40]), TRUTH[10:40, 0])
    np.testing.assert_allclose(found.score_NL[:, 0], model.decision_function(scaler.transform(FEATURES[60:])))
    whole = fit_probe(FEATURES, TRUTH, ["a", "b"], ROWS, settings)
    np.testing.assert_array_equal(found.score_NL[:, 1], whole.score_NL[:, 1])


def test_a_label_of_one_class_says_nothing_and_is_named():
    truth = TRUTH.copy()
    truth[:40, 1] = 0
    found = fit_probe(FEATURES, truth, ["a", "b"], ROWS, ProbeSettings())
    assert found.untrained == ("b",)
    assert (found.score_NL[:, 1] == 0).all()
    assert macro_auroc(truth[60:, 1:], found.score_NL[:, 1:]) == 0.5


def test_a_feature_that_is_the_same_in_training_does_not_decide():
    constant = FEATURES.copy()
    constant[:40, 5] = 1.0
    constant[60:, 5] = RNG.normal(scale=1e6, size=30)
    found = fit_probe(constant, TRUTH, ["a", "b"], ROWS, ProbeSettings())
    assert macro_auroc(TRUTH[60:], found.score_NL) > 0.7


@pytest.mark.parametrize("strengths", [(), (0.0,), (1.0, -1.0)])
def test_strengths_are_above_zero(strengths):
    with pytest.raises(ValueError, match=r"above 0|at least 1"):
        ProbeSettings(strengths=strengths)


def test_a_way_to_the_joint_space_that_nobody_trained_is_not_probed():
    assert [kind_of(init, "learned") for init in ("checkpoint", "random", "imagenet")] == [
        "embedding", "pooled", "pooled",
    ]  # fmt: skip
    assert kind_of("random", "embedding") == "embedding"
