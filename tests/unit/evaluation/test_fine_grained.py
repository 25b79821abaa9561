"""Side, severity and site, asked of a real model: images that lie where a label's text lies answer with that label."""

from __future__ import annotations

import numpy as np
import pytest

from medfilip.evaluation.fine_grained import Detail, evaluate_fine_grained
from medfilip.model.diagnoser import Diagnoser


@pytest.fixture(scope="module")
def diagnoser(tiny_checkpoint):
    return Diagnoser.load(tiny_checkpoint)


def evaluate(diagnoser, details, said, **options):
    """Evaluate images that look like what is ``said`` of them."""
    images = diagnoser.encode_labels(said).positive_LD
    patients = [str(i) for i in range(len(said))]
    given = {"labels": ("pleural_effusion", "consolidation"), "min_findings": 4, "resamples": 40, **options}
    return {
        (item.slot, item.category): item
        for item in evaluate_fine_grained(diagnoser, images, details, patients, **given)
    }


def test_the_side_that_is_shown_is_told(diagnoser):
    sides = ["left", "right"] * 6
    details = [{"pleural_effusion": Detail(laterality=side)} for side in sides]
    found = evaluate(diagnoser, details, [f"{side} pleural effusion" for side in sides])
    assert found["laterality", "pleural_effusion"].accuracy.value == 1
    wrong = evaluate(
        diagnoser, details, [f"{'left' if side == 'right' else 'right'} pleural effusion" for side in sides]
    )
    assert wrong["laterality", "pleural_effusion"].accuracy.value == 0
    assert wrong["laterality", "pleural_effusion"].chance == 0.5


def test_severities_are_ordered(diagnoser):
    ranks = ["mild", "moderate", "severe"] * 5
    details = [{"consolidation": Detail(severity=rank)} for rank in ranks]
    found = evaluate(diagnoser, details, [f"{rank} consolidation" for rank in ranks])["severity", "consolidation"]
    assert found.accuracy.value == found.concordance.value == 1
    assert list(found.choices) == ["mild", "moderate", "severe"] and found.majority == pytest.approx(1 / 3)
    constant = evaluate(diagnoser, details, ["mild consolidation"] * 15)["severity", "consolidation"]
    assert constant.concordance.value == 0.5 and constant.accuracy.value == pytest.approx(1 / 3)


def test_sites_and_all_categories_together(diagnoser):
    sites = ["upper_lobe", "lower_lobe"] * 5
    details = [
        {"nodule": Detail(laterality="left", sites=(site,)), "pleural_effusion": Detail(laterality=side)}
        for site, side in zip(sites, ["left", "right"] * 5, strict=True)
    ]
    said = [f"nodule in the {site.replace('_', ' ')}" for site in sites]
    found = evaluate(diagnoser, details, said, labels=("pleural_effusion", "nodule"))
    assert found["site", "nodule"].accuracy.value == 1
    # all nodules are on one side, so that there is nothing to choose
    assert ("laterality", "nodule") not in found and ("laterality", "") not in found
    assert found["laterality", "pleural_effusion"].findings == 10


def test_both_categories_make_one_number(diagnoser):
    sides = ["left", "right"] * 4
    details = [{name: Detail(laterality=side) for name in ("pleural_effusion", "consolidation")} for side in sides]
    found = evaluate(diagnoser, details, [f"{side} pleural effusion" for side in sides])
    parts = [found["laterality", name].accuracy.value for name in ("pleural_effusion", "consolidation")]
    together = found["laterality", ""]
    assert together.accuracy.value == pytest.approx(np.mean(parts))
    assert together.findings == 16 and together.choices == {"left": 8, "right": 8}


def test_what_is_rare_bilateral_or_unknown_is_not_asked(diagnoser):
    details = [{"pleural_effusion": Detail(laterality="bilateral")}] * 6 + [{"pleural_effusion": Detail()}] * 6
    details += [{"pleural_effusion": Detail(laterality="left")}] * 6 + [{"pleural_effusion": Detail("right")}] * 3
    assert evaluate(diagnoser, details, ["pleural effusion"] * len(details)) == {}
