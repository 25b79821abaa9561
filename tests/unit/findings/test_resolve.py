"""Resolution: the stated order of precedence, and contradictions that are kept."""

from __future__ import annotations

import itertools
from typing import Any

from medfilip.findings.resolve import resolve_report

_ids = itertools.count()


def mention(category: str, certainty: str = "present", section: str = "findings", **slots: Any) -> dict[str, Any]:
    single = ("hedge", "severity", "size", "size_mm", "count", "laterality", "change", "chronicity", "position")
    empty = dict.fromkeys((*single, "confidence"))
    return {
        **empty,
        "mention_id": next(_ids),
        "report_id": "r",
        "study_id": "s",
        "category": category,
        "certainty": certainty,
        "section": section,
        "sites": [],
        "patterns": [],
        "sentence_id": next(_ids),
        "evidence": [{"slot": "mention", "start": 0, "end": 5}],
        **slots,
    }


def resolve(*mentions: dict[str, Any]) -> dict[tuple[str, str | None], dict[str, Any]]:
    return {(row["category"], row["laterality"]): row for row in resolve_report(mentions)}


def test_impression_wins_over_findings_and_the_contradiction_is_flagged() -> None:
    found = resolve(mention("edema"), mention("edema", "absent", "impression"))
    assert found["edema", None]["certainty"] == "absent"
    assert found["edema", None]["conflict"]
    assert len(found["edema", None]["mention_ids"]) == 2


def test_definite_wins_over_hedged_even_from_the_findings() -> None:
    found = resolve(mention("pneumonia", "uncertain", "impression"), mention("pneumonia", severity="mild"))
    assert (found["pneumonia", None]["certainty"], found["pneumonia", None]["conflict"]) == ("present", False)
    assert found["pneumonia", None]["severity"] == "mild"


def test_an_unsided_mention_joins_the_sided_one() -> None:
    found = resolve(
        mention("pleural_effusion", laterality="left", size="small"), mention("pleural_effusion", sites=["pleura"])
    )
    assert list(found) == [("pleural_effusion", "left")]
    row = found["pleural_effusion", "left"]
    assert (row["size"], row["sites"]) == ("small", ["pleura"])


def test_left_and_right_are_two_findings_and_both_is_one() -> None:
    left, right = mention("atelectasis", laterality="left"), mention("atelectasis", laterality="right")
    assert set(resolve(left, right)) == {("atelectasis", "left"), ("atelectasis", "right")}
    assert list(resolve(left, mention("atelectasis", laterality="bilateral"))) == [("atelectasis", "bilateral")]


def test_regions_keep_findings_apart_and_a_general_mention_joins_one() -> None:
    base = mention("lung_opacity", laterality="left", sites=["lung_base"])
    apex = mention("lung_opacity", laterality="left", sites=["lung_apex"])
    found = resolve_report(
        [base, apex, mention("lung_opacity", laterality="left", sites=["lower_lobe"], severity="mild")]
    )
    assert sorted((row["severity"] or "", sorted(row["sites"])) for row in found) == [
        ("", ["lung_apex"]),
        ("mild", ["lower_lobe", "lung_base"]),
    ]
    assert len(resolve_report([base, apex, mention("lung_opacity")])) == 2


def test_one_statement_about_two_places_is_two_findings() -> None:
    shared = {"sentence_id": 7, "evidence": [{"slot": "mention", "start": 0, "end": 5}]}
    hilum = mention("calcified_lymph_nodes", laterality="right", sites=["hilum"], **shared)
    carina = mention("calcified_lymph_nodes", sites=["carina"], **shared)
    assert len(resolve_report([hilum, carina])) == 2


def test_one_side_present_and_the_other_absent_stay_two_findings() -> None:
    found = resolve(mention("pneumothorax", laterality="right"), mention("pneumothorax", "absent", laterality="left"))
    assert {key: row["certainty"] for key, row in found.items()} == {
        ("pneumothorax", "right"): "present",
        ("pneumothorax", "left"): "absent",
    }
    assert not any(row["conflict"] for row in found.values())


def test_slots_of_a_denied_mention_do_not_leak_into_a_stated_one() -> None:
    found = resolve(mention("edema"), mention("edema", "absent", severity="severe"))
    assert found["edema", None]["severity"] is None


def test_the_order_of_mentions_does_not_matter() -> None:
    mentions = [mention("edema"), mention("edema", "absent", "impression"), mention("nodule", laterality="left")]
    assert resolve_report(mentions) == resolve_report(mentions[::-1])


def test_a_finding_stated_twice_is_surer() -> None:
    (once,) = resolve_report([mention("edema", confidence=0.8)])
    (twice,) = resolve_report(
        [mention("edema", confidence=0.8), mention("edema", section="impression", confidence=0.8)]
    )
    assert once["confidence"] == 0.8 < twice["confidence"] < 1
