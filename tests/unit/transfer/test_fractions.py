"""Shares of labels: nested, by patient, with every class where that is possible."""

from __future__ import annotations

import numpy as np
import pytest

from medfilip.transfer.fractions import draw_fraction, patient_order

RNG = np.random.default_rng(0)
PATIENTS = [f"p{at}" for at in RNG.integers(0, 200, 500)]
TRUTH = np.where(RNG.random((500, 5)) < 0.2, -1, (RNG.random((500, 5)) < [0.5, 0.3, 0.1, 0.03, 0.01]).astype(int))


@pytest.mark.parametrize("seed", [0, 1])
def test_smaller_shares_lie_within_larger_ones(seed):
    shares = [set(draw_fraction(PATIENTS, TRUTH, fraction, seed).tolist()) for fraction in (0.01, 0.1, 0.5, 1.0)]
    assert shares[0] < shares[1] < shares[2] < shares[3]
    assert shares[3] == set(range(500))


def test_a_patient_is_in_a_share_with_all_images_or_none():
    chosen = draw_fraction(PATIENTS, TRUTH, 0.1, 0)
    inside = {PATIENTS[at] for at in chosen}
    assert len(inside) == np.ceil(0.1 * len(set(PATIENTS)))
    assert chosen.tolist() == [at for at, patient in enumerate(PATIENTS) if patient in inside]


def test_a_small_share_has_every_class_that_fits_into_it():
    chosen = draw_fraction(PATIENTS, TRUTH, 0.03, 0)
    assert len({PATIENTS[at] for at in chosen}) == 6
    for column in TRUTH[chosen].T:
        assert {0, 1} <= set(column.tolist())
    # The rarest label is in 1 % of the images: a blind draw of 3 % would lack it mostly.
    assert (TRUTH[:, 4] == 1).mean() < 0.02


def test_a_share_is_never_empty_and_seeds_differ():
    assert len({PATIENTS[at] for at in draw_fraction(PATIENTS, TRUTH, 1e-6, 0)}) == 1
    assert patient_order(PATIENTS, TRUTH, 0) == patient_order(PATIENTS, TRUTH, 0)
    assert patient_order(PATIENTS, TRUTH, 0) != patient_order(PATIENTS, TRUTH, 1)


def test_a_class_that_nobody_has_is_not_waited_for():
    truth = np.zeros((4, 1), np.int64)
    assert len(draw_fraction(["a", "b", "c", "d"], truth, 0.5, 0)) == 2


def test_shares_of_whole_numbers_are_not_rounded_up():
    patients = [str(at) for at in range(100)]
    assert len(draw_fraction(patients, np.zeros((100, 1), np.int64), 0.07, 0)) == 7
