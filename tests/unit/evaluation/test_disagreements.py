"""Disagreements: their kind, the sentences they come from, and the page that shows them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from medfilip.evaluation.agreement import AtomReader, ReportFindings, evaluate_agreement
from medfilip.evaluation.disagreements import Disagreement, ReportTexts, find_disagreements
from medfilip.evaluation.extraction_page import marked, write_errors, write_extraction
from medfilip.evaluation.risk import risk_coverage
from medfilip.findings.ontology import load_ontology

ONTOLOGY = load_ontology()
ATOMS = AtomReader(ONTOLOGY)
TEXT = "Small <left> effusion. Heart normal."


def finding(category: str, **slots: Any) -> dict[str, Any]:
    return {"category": category, "certainty": "present", "sites": [], "hedge": None, "confidence": 0.9, **slots}


def mention(category: str, start: int, end: int, **slots: Any) -> dict[str, Any]:
    return {**finding(category, **slots), "evidence": [{"slot": "mention", "start": start, "end": end}]}


def disagreements(
    annotated: list[dict[str, Any]], predicted: list[dict[str, Any]], mentions: list[dict[str, Any]]
) -> list[Disagreement]:
    report = ReportFindings("r1", ATOMS.read(annotated), ATOMS.read(predicted), normal=False)
    texts = ReportTexts(TEXT, [(0, 22, ("placeholder",)), (23, 36, ())], mentions)
    return list(find_disagreements(report, texts, {}))


def test_equal_findings_do_not_disagree() -> None:
    same = [finding("pleural_effusion", laterality="left")]
    assert disagreements(same, same, []) == []


def test_the_kind_says_what_differs_first() -> None:
    left = finding("pleural_effusion", laterality="left", size="small")
    kinds = {
        "missing": [],
        "side": [{**left, "laterality": "right"}],
        "severity": [{**left, "size": "large"}],
    }
    for kind, predicted in kinds.items():
        assert [d.kind for d in disagreements([left], predicted, [])] == [kind]
    assert [d.kind for d in disagreements([], [left], [])] == ["added"]
    assert [d.kind for d in disagreements([left], [{**left, "sites": ["lung_base"]}], [])] == ["region"]


def test_the_sentence_of_a_mention_is_shown_with_its_words_marked() -> None:
    said = mention("pleural_effusion", 13, 21)
    (found,) = disagreements([], [finding("pleural_effusion")], [said])
    (passage,) = found.passages
    assert TEXT[13:21] == "effusion" and passage.marks == ((13, 21, "mention"),)
    assert found.phenomena == ("doubt: placeholder",)
    html = str(marked(passage))
    assert "&lt;left&gt;" in html and '<mark class="mention" title="mention">effusion</mark>' in html


def test_without_a_mention_the_whole_report_is_shown() -> None:
    (found,) = disagreements([finding("mass")], [], [])
    assert (len(found.passages), found.phenomena, found.confidence) == (2, ("no mention found",), 0.0)


def test_pages_load_nothing_and_quote_escaped_text(tmp_path: Path) -> None:
    left = finding("pleural_effusion", laterality="left")
    reports = [ReportFindings("r1", ATOMS.read([left]), ATOMS.read([left]), normal=False)] * 3
    write_extraction(
        tmp_path,
        facts={"truth": "<b>"},
        agreement={"as stated": evaluate_agreement(reports, ONTOLOGY, resamples=20)},
        statements=None,
        risk=risk_coverage([0.9, 0.5, 0.4], [True, True, False]),
    )
    found = disagreements([], [left], [mention("pleural_effusion", 13, 21)])
    write_errors(tmp_path, found * 3, limit=2)
    for name in ("extraction.html", "errors.html"):
        page = (tmp_path / name).read_text(encoding="utf-8")
        addresses = set(re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\'\s)>]+)', page))
        assert all(address.startswith("#") for address in addresses)
        assert "<b>" not in page and "<left>" not in page
    errors = (tmp_path / "errors.html").read_text(encoding="utf-8")
    assert errors.count('<tr data-kind="added"') == 2 and "most confident of 3" in errors
