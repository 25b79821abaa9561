import re

import numpy as np
import pytest

from medfilip.findings.finding import Certainty, Finding, Hedge, Laterality
from medfilip.findings.ontology import load_ontology
from medfilip.phantom.lesions import CATEGORIES, Lesion, sample_lesions
from medfilip.phantom.text import write_report
from medfilip.phantom.writer import ReportWriter, Slot, render

REPORTS = 400


@pytest.fixture(scope="module")
def reports() -> list[tuple[tuple[Lesion, ...], str, tuple[Finding, ...]]]:
    made = []
    for index in range(REPORTS):
        lesions = sample_lesions(np.random.default_rng([1, index]))
        made.append((lesions, *write_report(lesions, np.random.default_rng([2, index]))))
    return made


def words(text: str, finding: Finding, slot: str) -> list[str]:
    return [text[one.start : one.end].lower() for one in finding.evidence if one.slot == slot]


def test_spans_reproduce_the_words_of_every_slot(reports) -> None:
    ontology = load_ontology()
    for _, text, findings in reports:
        for finding in findings:
            assert len(words(text, finding, "mention")) == 1
            for one in finding.evidence:
                assert re.search(r"^\w.*\w$", text[one.start : one.end]), text[one.start : one.end]
                assert not re.match(r"\w", text[one.end : one.end + 1]) and not re.search(r"\w", text[one.start - 1])
            if finding.laterality is not None:
                assert words(text, finding, "laterality") == [str(finding.laterality)]
            if finding.size_mm is not None:
                assert words(text, finding, "size_mm") == [f"{finding.size_mm:.0f} mm"]
            if finding.severity is not None:
                said = words(text, finding, "severity")
                assert len(said) == 1 and said[0] in ontology.severities[finding.severity]
            if finding.size is not None:
                assert words(text, finding, "size")[0] in ontology.sizes[finding.size]
            for site in finding.sites:
                assert words(text, finding, "site")[0] in ontology.sites[site].synonyms


def test_every_empty_slot_has_no_words(reports) -> None:
    for _, text, findings in reports:
        for finding in findings:
            for name in ("laterality", "size_mm", "severity", "size", "change"):
                assert (getattr(finding, name) is None) == (not words(text, finding, name)), (name, finding)


def test_findings_stand_in_findings_and_impression_only(reports) -> None:
    for _, text, findings in reports:
        begin = text.index("FINDINGS:")
        assert all(one.start > begin for finding in findings for one in finding.evidence)
    assert any("pneumonia" in text for _, text, _ in reports)
    assert all(finding.category != "pneumonia" for _, _, findings in reports for finding in findings)


def test_every_word_for_a_category_is_in_the_truth(reports) -> None:
    ontology = load_ontology()
    for _, text, findings in reports:
        body = text[text.index("FINDINGS:") :]
        offset = len(text) - len(body)
        spans = [(one.start, one.end) for finding in findings for one in finding.evidence if one.slot == "mention"]
        for category in (*CATEGORIES, "pneumonia", "edema", "atelectasis", "degenerative_spine"):
            for term in ontology.categories[category].terms:
                for match in re.finditer(rf"\b{re.escape(term)}\b", body.lower()):
                    at = match.start() + offset
                    assert any(start <= at < end for start, end in spans), (term, body)


def test_what_is_drawn_is_stated_and_agrees(reports) -> None:
    for lesions, _, findings in reports:
        for lesion in lesions:
            stated = [
                finding
                for finding in findings
                if finding.category == lesion.category
                and finding.certainty != Certainty.ABSENT
                and finding.laterality in (lesion.laterality, Laterality.BILATERAL)
            ]
            assert stated
            assert all(one.size_mm in (None, lesion.size_mm) for one in stated)


def test_what_is_not_drawn_is_never_stated_as_present(reports) -> None:
    for lesions, _, findings in reports:
        drawn = {(lesion.category, lesion.laterality) for lesion in lesions}
        for finding in findings:
            if finding.category in CATEGORIES and finding.certainty == Certainty.PRESENT:
                sides = [finding.laterality]
                if finding.laterality == Laterality.BILATERAL:
                    sides = [Laterality.LEFT, Laterality.RIGHT]
                assert all((finding.category, side) in drawn for side in sides)
            if finding.category in CATEGORIES and finding.certainty == Certainty.ABSENT:
                assert (finding.category, finding.laterality) not in drawn
                if finding.laterality is None:
                    assert finding.category not in {category for category, _ in drawn}


def test_reports_are_varied(reports) -> None:
    findings = [finding for _, _, stated in reports for finding in stated]
    assert {finding.certainty for finding in findings} == set(Certainty)
    assert {Hedge.POSSIBLE, Hedge.PROBABLE, Hedge.CANNOT_EXCLUDE} <= {finding.hedge for finding in findings}
    assert {"unchanged", "increased", "new"} <= {finding.change for finding in findings}
    assert {"minimal", "mild", "moderate", "severe"} <= {finding.severity for finding in findings}
    assert Laterality.BILATERAL in {finding.laterality for finding in findings}
    assert len({text for _, text, _ in reports}) > 0.95 * REPORTS
    sentences = {part for _, text, _ in reports for part in re.split(r"(?<=[.:]) ", text)}
    assert len(sentences) > 300


def test_text_is_tidy(reports) -> None:
    for _, text, _ in reports:
        assert not re.search(
            r"  | [.,]|[{}<>]|\.\.|\ba [aeiou8]|\ba 1[18]\b|PHRASE|ARTICLE|NOUN|ISARE|MENTIONS", text
        ), text
        assert re.search(r"FINDINGS: [A-Z0-9]", text) and re.search(r"IMPRESSION: [A-Z0-9]", text)


def test_render_drops_empty_slots_and_picks_the_article() -> None:
    template = "there is {a} {degree} {laterality} <effusion> {certainty}."
    slots = {"degree": Slot("severity", "extensive", "severe"), "laterality": None}
    text, spans, mentions = render(template, slots | {"certainty": Slot("certainty", "today", "present")})
    assert text == "there is an extensive effusion today."
    assert spans == [("degree", 12, 21), ("certainty", 31, 36)] and mentions == [(22, 30)]


@pytest.mark.parametrize(
    ("size", "article"), [("8 mm", "an"), ("18 mm", "an"), ("11 mm", "an"), ("14 mm", "a"), ("110 mm", "a")]
)
def test_articles_of_numbers(size: str, article: str) -> None:
    assert render("{a} {size} x", {"size": Slot("size_mm", size, 1.0)})[0] == f"{article} {size} x"


def test_a_severity_may_stand_inside_the_mention() -> None:
    writer = ReportWriter()
    writer.plain("Intro. ")
    writer.state("the <heart is {degree} enlarged>.", ("cardiomegaly",), {"degree": Slot("severity", "mildly", "mild")})
    (finding,) = writer.findings
    assert writer.text == "Intro. The heart is mildly enlarged."
    assert [writer.text[one.start : one.end] for one in finding.evidence] == ["heart is mildly enlarged", "mildly"]
