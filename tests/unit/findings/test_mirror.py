"""The mirror image of findings: left for right in codes and words, and none where the other side has no counterpart."""

from __future__ import annotations

import pytest

from medfilip.findings.codes import Codebook
from medfilip.findings.mirror import ONE_SIDED_SITES, can_mirror, mirror_code, mirror_text
from medfilip.findings.ontology import load_ontology

CODEBOOK = Codebook.of(load_ontology())


def code(laterality: str | None, *sites: str) -> dict:
    found = {"category": "nodule", "certainty": "present", "laterality": laterality, "sites": list(sites)}
    return dict(CODEBOOK.encode(found))


@pytest.mark.parametrize(
    ("before", "after"), [("left", "right"), ("right", "left"), ("bilateral", "bilateral"), (None, None)]
)
def test_sides_are_swapped(before, after) -> None:
    assert mirror_code(code(before, "upper_lobe")) == code(after, "upper_lobe")
    assert mirror_code(mirror_code(code(before))) == code(before)


def test_what_exists_on_one_side_only_is_not_mirrored() -> None:
    assert set(CODEBOOK.sites) >= ONE_SIDED_SITES
    assert can_mirror([code("left", "upper_lobe"), code("right")], CODEBOOK)
    assert not can_mirror([code("left", "upper_lobe"), code("left", "lingula")], CODEBOOK)


@pytest.mark.parametrize(
    ("text", "mirrored"),
    [
        ("left effusion. blunts the left angle", "right effusion. blunts the right angle"),
        ("Right apex; LEFT base", "Left apex; RIGHT base"),
        ("leftover, upright, bilateral", "leftover, upright, bilateral"),
        ("right-sided line", "left-sided line"),
        ("consolidation in the middle lobe", None),
        ("lingular opacity", None),
    ],
)
def test_words_are_swapped(text, mirrored) -> None:
    assert mirror_text(text) == mirrored
