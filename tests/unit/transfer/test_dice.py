"""Dice with and without empty masks, against MONAI; cuts from validation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medfilip.transfer.dice import LEAST_AREAS, THRESHOLDS, Cut, choose_cut, dice, has_lesion, overlaps, quality

RNG = np.random.default_rng(0)


def random_masks(count=12, side=16):
    truth = torch.from_numpy(RNG.random((count, 1, side, side)) < 0.2)
    truth[::3] = False
    probability = torch.from_numpy(RNG.random((count, 1, side, side))).float()
    probability[::2] *= 0.05  # nothing is marked there
    return probability, truth


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.9])
def test_dice_is_monais_with_empty_masks_counted(threshold):
    from monai.metrics import compute_dice

    probability, truth = random_masks()
    found = dice(overlaps(probability, truth).numpy(), Cut(threshold, 0.0))
    expected = compute_dice((probability >= threshold).float(), truth.float(), ignore_empty=False)
    np.testing.assert_allclose(found, expected[:, 0].numpy(), atol=1e-6)
    lesions = has_lesion(overlaps(probability, truth).numpy())
    ignoring = compute_dice((probability >= threshold).float(), truth.float(), ignore_empty=True)[:, 0].numpy()
    assert (np.isnan(ignoring) == ~lesions).all()
    np.testing.assert_allclose(found[lesions], ignoring[lesions], atol=1e-6)


def counts(pairs):
    """Return counts of images given as (marked rows, rows of the mask), of eight rows of eight pixels."""
    probability, truth = torch.zeros(len(pairs), 1, 8, 8), torch.zeros(len(pairs), 1, 8, 8, dtype=torch.bool)
    for at, (marked, lesion) in enumerate(pairs):
        probability[at, :, list(marked)] = 0.75
        truth[at, :, list(lesion)] = True
    return overlaps(probability, truth).numpy()


def test_the_convention_of_empty_masks():
    found = dice(counts([((), ()), ((0,), ()), ((), (0,)), ((0,), (0,)), ((0, 1), (0,))]), Cut(0.5, 0.0))
    np.testing.assert_allclose(found, [1, 0, 0, 1, 2 / 3])


def test_a_small_marked_area_is_called_nothing():
    table = counts([((0,), ()), ((0, 1, 2), (0, 1, 2))])
    np.testing.assert_allclose(dice(table, Cut(0.5, 0.125)), [0, 1])
    np.testing.assert_allclose(dice(table, Cut(0.5, 0.13)), [1, 1])
    np.testing.assert_allclose(dice(table, Cut(0.8, 0.0)), [1, 0])


def test_marking_nothing_is_not_the_best_cut_of_rare_lesions():
    # Nine images without a lesion, of which three are marked a little, and one found well.
    table = counts([((), ())] * 6 + [((0,), ())] * 3 + [((0, 1), (0, 1))])
    cut, value = choose_cut(table)
    nothing = Cut(0.9, 0.0)
    assert dice(table, nothing).mean() == 0.9 and quality(table, nothing) == 0.45
    assert cut.threshold <= 0.7 and value == pytest.approx((0.7 + 1) / 2)
    assert value == max(quality(table, Cut(t, a)) for t in THRESHOLDS for a in LEAST_AREAS)


def test_without_lesions_all_images_count_and_without_images_nothing_does():
    assert quality(counts([((), ()), ((0,), ())]), Cut(0.5, 0.0)) == 0.5
    assert quality(counts([]), Cut(0.5, 0.0)) == 0.0
