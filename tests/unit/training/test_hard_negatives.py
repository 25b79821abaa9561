"""Altered findings: one slot differs, and the codes can be told again."""

from __future__ import annotations

import pytest

from medfilip.knowledge.inject import training_texts
from medfilip.training.hard_negatives import alterations, changed_slot, outranks
from tests.unit.training.synthetic import CODEBOOK, KNOWLEDGE, ONTOLOGY


def changes(finding):
    """Return the slots that each alteration changes."""
    code = dict(CODEBOOK.encode(finding))
    altered = alterations(code, CODEBOOK)
    return [{slot for slot in code if code[slot] != other[slot]} for other in altered], altered


def test_a_present_finding_is_denied_mirrored_and_made_of_another_severity():
    slots, altered = changes(
        {"category": "pleural_effusion", "certainty": "present", "laterality": "left", "severity": "mild"}
    )
    assert slots == [{"certainty"}, {"laterality"}, *[{"severity"}] * (len(CODEBOOK.severities) - 1)]
    told = [training_texts(CODEBOOK.decode(code), KNOWLEDGE, ONTOLOGY)[0] for code in altered]
    assert told[0].startswith(("no ", "on the left no "))
    assert told[1].startswith("mild right pleural effusion") and told[-1].startswith("severe left pleural effusion")


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        ({"category": "nodule", "certainty": "absent", "laterality": "left"}, [{"certainty"}]),
        ({"category": "nodule", "certainty": "uncertain", "laterality": "right"}, [{"laterality"}]),
        ({"category": "nodule", "certainty": "uncertain"}, []),
        ({"category": "consolidation", "certainty": "present", "laterality": "right", "sites": ["middle_lobe"]},
         [{"certainty"}]),
        ({"category": "nodule", "certainty": "present", "laterality": "bilateral"}, [{"certainty"}]),
    ],
)  # fmt: skip
def test_what_has_no_counterpart_is_left_alone(finding, expected):
    assert changes(finding)[0] == expected


def test_a_decoded_finding_has_the_codes_it_came_from():
    finding = {"category": "mass", "certainty": "uncertain", "severity": "moderate", "laterality": "left",
               "sites": ["upper_lobe", "hilum"]}  # fmt: skip
    code = CODEBOOK.encode(finding)
    assert CODEBOOK.encode(CODEBOOK.decode(code)) == code
    plain = CODEBOOK.encode({"category": "mass", "certainty": "absent"})
    assert CODEBOOK.encode(CODEBOOK.decode(plain)) == plain


def code_of(**slots):
    return dict(CODEBOOK.encode({"category": "pleural_effusion", "certainty": "present", **slots}))


def test_severities_come_from_those_that_are_told():
    severe = CODEBOOK.severities.index("severe")
    mild = code_of(severity="mild")
    told = [other["severity"] for other in alterations(mild, CODEBOOK, {mild["severity"], severe})]
    assert told == [mild["severity"], severe]  # the denial keeps its own


@pytest.mark.parametrize(
    ("others", "surely"),
    [
        ([], True),
        ([{"laterality": "left"}], False),
        ([{"laterality": "bilateral"}], False),
        ([{"laterality": "left", "certainty": "absent"}], True),
        ([{"laterality": "left", "category": "nodule"}], True),
        ([{"severity": "severe"}], True),
    ],
)
def test_a_side_outranks_the_other_unless_the_report_states_that_too(others, surely):
    right = code_of(laterality="right")
    denied, mirrored = alterations(right, CODEBOOK)
    stated = [right, *(code_of(**slots) for slots in others)]
    assert changed_slot(right, mirrored) == "laterality"
    assert outranks(right, mirrored, stated) == surely
    assert not outranks(right, denied, stated)  # its target is 0: nothing is left to rank
