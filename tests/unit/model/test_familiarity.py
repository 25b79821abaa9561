"""Familiarity: strangers lie farther out, quantiles hold for images the reference did not see, files round-trip."""

from __future__ import annotations

import numpy as np
import pytest

from medfilip.model.familiarity import Familiarity


def corpus(n, seed, dimensions=16):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(dimensions, dimensions))
    return (rng.normal(size=(n, dimensions)) @ mixing).astype(np.float32)


def test_quantiles_hold_for_new_images_of_the_same_corpus():
    # with 120 images in 16 dimensions, distances of the images themselves would be far too small
    found = Familiarity.fit(corpus(120, seed=0))
    share = found.unfamiliarity(corpus(4000, seed=1))
    assert np.mean(share > 0.9) == pytest.approx(0.1, abs=0.05)
    assert np.mean(share) == pytest.approx(0.5, abs=0.07)


def test_strangers_lie_farther_out():
    found = Familiarity.fit(corpus(200, seed=0))
    strangers = np.random.default_rng(5).normal(size=(50, 16)).astype(np.float32) * 20
    assert found.distance(strangers).min() > found.distance(corpus(200, seed=2)).max()
    assert (found.unfamiliarity(strangers) == 1).all()


def test_distance_is_that_of_mahalanobis():
    known = corpus(300, seed=0)
    found, stranger = Familiarity.fit(known), corpus(1, seed=7)
    away = stranger[0] - found.mean_D
    assert found.distance(stranger)[0] == pytest.approx(np.sqrt(away @ found.precision_DD @ away))


def test_bytes_round_trip_and_wrong_ones_are_refused():
    found = Familiarity.fit(corpus(60, seed=0))
    again = Familiarity.from_bytes(found.to_bytes())
    assert np.array_equal(again.distance(corpus(9, seed=1)), found.distance(corpus(9, seed=1)))
    with pytest.raises(ValueError):
        Familiarity.from_bytes(Familiarity(found.mean_D[:3], found.precision_DD, found.distance_Q).to_bytes())


def test_too_few_images_are_no_reference():
    assert Familiarity.fit(corpus(39, seed=0)) is None
