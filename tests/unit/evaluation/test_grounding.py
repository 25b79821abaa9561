"""The pointing game and its controls, on maps and boxes that can be checked by eye."""

from __future__ import annotations

import numpy as np
import pytest

from medfilip.evaluation.grounding import SHARES, Pointed, box_mask, evaluate_grounding, point
from medfilip.model.diagnoser import Diagnoser


def test_boxes_follow_the_image_into_the_square():
    assert box_mask([(2, 3, 5, 9)], (10, 10), 10).nonzero()[0].tolist() == [2] * 6 + [3] * 6 + [4] * 6
    # an image twice as wide as high fills the middle half of the square's height
    wide = box_mask([(0, 0, 50, 100)], (50, 100), 20)
    assert wide.sum() == 20 * 10 and wide[5:15].all()
    assert box_mask([(0, 0, 1, 1)], (1000, 1000), 10).sum() == 1
    two = box_mask([(0, 0, 2, 2), (8, 8, 10, 10)], (10, 10), 10)
    assert two.sum() == 8 and two[0, 0] and two[9, 9] and not two[0, 9]


def pointed(split="test", label="mass", patient="p", **changes):
    overlap = tuple(share / 2 for share in SHARES)  # best at the largest share
    given = {
        "hit": True, "blank_hit": False, "shuffled_hit": None, "overlap_T": overlap,
        "blank_overlap_T": (0.0,) * len(SHARES), "shuffled_overlap_T": None, "covered": 0.25,
    }  # fmt: skip
    return Pointed(label=label, patient=patient, split=split, **(given | changes))


def test_the_share_is_chosen_on_validation_and_never_on_test():
    rising = tuple(share / 2 for share in SHARES)
    validation = [pointed("validation", overlap_T=tuple(reversed(rising)))]
    found = evaluate_grounding([pointed(patient=str(i)) for i in range(6)] + validation, "gradient", resamples=20)
    assert found.share == SHARES[0] and found.share_from == "validation"
    assert found.rows[0].iou.value == pytest.approx(rising[0])


def test_numbers_are_means_with_their_controls():
    items = [pointed(patient=str(i), hit=i < 6, shuffled_hit=i < 2 if i < 4 else None) for i in range(8)]
    items += [pointed(label="edema", patient="q", hit=False)]
    found = evaluate_grounding(items, "patch", resamples=50)
    everything, mass = found.rows
    assert everything.label == "" and everything.findings == 9 and mass.label == "mass"  # one edema is too few
    assert mass.pointing.value == 0.75 and mass.pointing.low < 0.75 < mass.pointing.high
    assert mass.pointing_shuffled.value == 0.5 and mass.pointing_blank.value == 0 and mass.pointing_chance == 0.25
    assert mass.iou_shuffled is None


def test_nothing_in_the_test_split_is_no_result():
    assert evaluate_grounding([pointed("validation")], "gradient") is None


class _Certain(Diagnoser):
    """A real model whose maps are replaced by known ones."""

    def heat_maps(self, pixels_N1SS, bank, method="gradient"):
        maps = np.zeros((len(pixels_N1SS), len(bank.labels), 32, 32), np.float32)
        maps[0, 0, 4:8, 4:8] = 1  # of the image: the first label at its box, the second one elsewhere
        maps[0, 1, 20:24, 20:24] = 1
        maps[1, :, 30, 30] = 1  # of noise
        return maps


def test_an_image_is_compared_with_noise_and_with_its_other_label(tiny_checkpoint):
    diagnoser = _Certain.load(tiny_checkpoint)
    boxes = {"mass": [(8, 8, 16, 16)], "edema": [(40, 40, 48, 48), (60, 60, 64, 64)]}
    first, second = point(
        diagnoser, np.zeros((1, 32, 32), np.float32), boxes, (64, 64),
        patient="p", split="test", method="gradient", seed=0,
    )  # fmt: skip
    assert (first.hit, first.blank_hit, first.shuffled_hit) == (True, False, False)
    assert first.overlap_T == (1.0,) * len(SHARES) and first.covered == pytest.approx(16 / 1024)
    assert (second.hit, second.blank_hit, second.shuffled_hit) == (True, True, False)
    assert second.overlap_T[0] == pytest.approx(16 / 20)
