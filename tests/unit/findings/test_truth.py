"""What a study says about a category, through the tree."""

from __future__ import annotations

import pytest

from medfilip.findings.ontology import load_ontology
from medfilip.findings.truth import ABSENT, PRESENT, UNKNOWN, category_truth


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([("consolidation", "present")], PRESENT),
        ([("pneumonia", "present")], PRESENT),
        ([("lung_opacity", "present")], UNKNOWN),
        ([("consolidation", "absent")], ABSENT),
        ([("lung_opacity", "absent")], ABSENT),
        ([("pneumonia", "absent")], UNKNOWN),
        ([("consolidation", "absent"), ("pneumonia", "present")], PRESENT),
        ([("lung_opacity", "absent"), ("consolidation", "uncertain")], UNKNOWN),
        ([], UNKNOWN),
    ],
)
def test_truth_of_consolidation(statements, expected):
    assert category_truth(statements, "consolidation", load_ontology()) == expected


def test_silence_can_mean_absence():
    assert category_truth([("nodule", "present")], "consolidation", load_ontology(), silent=ABSENT) == ABSENT
