import math
import re

import numpy as np
import pytest

from medfilip.findings.finding import Certainty, Change, Finding, Hedge, Laterality
from medfilip.findings.ontology import load_ontology
from medfilip.findings.truth import ABSENT, PRESENT, category_truth
from medfilip.phantom.claims import NOUNS
from medfilip.phantom.dice import Dice
from medfilip.phantom.extras import LOBES, extras_by_category, forms_for, load_extras, unrelated
from medfilip.phantom.lesions import BASIC_CATEGORIES, CATEGORIES, DEVICES, Lesion, sample_study
from medfilip.phantom.study import make_report
from medfilip.phantom.text import write_report
from medfilip.phantom.writer import ReportWriter, Slot, misspell, render
from medfilip.reports.encoding import clean_text
from medfilip.reports.report import RawReport, Source
from medfilip.reports.report import make_report as judge
from medfilip.reports.sections import BODY_SECTIONS, split_sections
from medfilip.reports.sentences import report_sentences

REPORTS = 400
PHENOMENA = (
    r"(left|right) (greater|more|larger) than",
    r"\bRLL\b",
    r"\bPTX\b",
    "oedema",
    "Conclusion",
    "___",
    r"\n2\. ",
    " and atelectasis",
)
SIDE_WORDS = {"left", "right", "bilateral", *(name.lower() for name in LOBES.values())}


@pytest.fixture(scope="module")
def reports() -> list[tuple[tuple[Lesion, ...], str, tuple[Finding, ...]]]:
    made = []
    for index in range(REPORTS):
        views = (("PA",), ("AP",), ("PA", "LL"))[index % 3]
        lesions = sample_study(1, index, bedside=views[0] == "AP", prevalence=0.3 if index % 2 else None)
        made.append((lesions, *write_report(lesions, np.random.default_rng([2, index]), typos=0.0, views=views)))
    return made


def body(text: str) -> list[tuple[int, int]]:
    return [(one.start, one.end) for one in split_sections(text) if one.name in BODY_SECTIONS]


def words(text: str, finding: Finding, slot: str) -> list[str]:
    return [text[one.start : one.end].lower() for one in finding.evidence if one.slot == slot]


def millimetres(said: str) -> float:
    number, unit = said.split()
    return float(number) * {"mm": 1, "cm": 10}[unit]


def test_spans_reproduce_the_words_of_every_slot(reports) -> None:
    ontology = load_ontology()
    for _, text, findings in reports:
        for finding in findings:
            assert len(words(text, finding, "mention")) == 1
            for one in finding.evidence:
                assert re.search(r"^\w.*\w$", text[one.start : one.end]), text[one.start : one.end]
                assert not re.match(r"\w", text[one.end : one.end + 1]) and not re.search(r"\w", text[one.start - 1])
            if finding.laterality is not None:
                assert len(words(text, finding, "laterality")) == 1
                assert words(text, finding, "laterality")[0] in SIDE_WORDS
            if finding.size_mm is not None:
                assert millimetres(words(text, finding, "size_mm")[0]) == pytest.approx(finding.size_mm)
            if finding.severity is not None:
                said = words(text, finding, "severity")
                assert len(said) == 1 and said[0] in ontology.severities[finding.severity]
            if finding.size is not None:
                assert words(text, finding, "size")[0] in ontology.sizes[finding.size]
            for site in finding.sites:
                said = words(text, finding, "site")
                assert any(word in ontology.sites[site].synonyms or word in SIDE_WORDS for word in said)
            for pattern in finding.patterns:
                assert set(words(text, finding, "pattern")) & set(ontology.patterns[pattern])


def test_every_empty_slot_has_no_words(reports) -> None:
    for _, text, findings in reports:
        for finding in findings:
            for name in ("laterality", "size_mm", "severity", "size", "change", "chronicity", "position"):
                assert (getattr(finding, name) is None) == (not words(text, finding, name)), (name, finding)


def test_findings_stand_in_the_sections_that_state_findings(reports) -> None:
    for _, text, findings in reports:
        spans = body(text)
        for finding in findings:
            for one in finding.evidence:
                assert any(start <= one.start and one.end <= end for start, end in spans), text
    assert any("pneumonia" in text for _, text, _ in reports)
    assert all(finding.category != "pneumonia" for _, _, findings in reports for finding in findings)


def test_every_word_for_a_category_is_in_the_truth(reports) -> None:
    ontology = load_ontology()
    categories = (*CATEGORIES, "pneumonia", "edema", "atelectasis", "degenerative_spine", "picc", "scarring")
    terms = {term for category in categories for term in ontology.categories[category].terms}
    patterns = {term: re.compile(rf"\b{re.escape(term)}\b") for term in terms}
    for _, text, findings in reports:
        spans = [(one.start, one.end) for finding in findings for one in finding.evidence if one.slot == "mention"]
        lower = text.lower()
        for term in (term for term in terms if term in lower):
            for match in patterns[term].finditer(lower):
                if any(start <= match.start() < end for start, end in body(text)):
                    assert any(start < match.end() and match.start() < end for start, end in spans), (term, text)


def test_what_is_drawn_is_stated_and_agrees(reports) -> None:
    devices = passed_over = 0
    for lesions, _, findings in reports:
        for lesion in lesions:
            stated = [
                finding
                for finding in findings
                if finding.category == lesion.category
                and finding.certainty != Certainty.ABSENT
                and finding.laterality in (lesion.laterality, Laterality.BILATERAL)
            ]
            if lesion.category in DEVICES and not stated:
                passed_over += 1
                continue
            devices += lesion.category in DEVICES
            assert stated, lesion
            sizes = {other.size_mm for other in lesions if other.category == lesion.category}
            assert all(one.size_mm in (None, *sizes) for one in stated)
            assert all(one.position in (None, *positions(lesions, lesion.category)) for one in stated)
    assert 0.02 < passed_over / (devices + passed_over) < 0.2, "reports pass over some devices, and nothing else"


def positions(lesions: tuple[Lesion, ...], category: str) -> set[str | None]:
    return {one.position for one in lesions if one.category == category}


def test_severities_and_sites_are_those_that_are_drawn(reports) -> None:
    for lesions, _, findings in reports:
        for finding in findings:
            drawn = [one for one in lesions if one.category == finding.category]
            if not drawn or finding.certainty == Certainty.ABSENT:
                continue
            if finding.laterality in (Laterality.LEFT, Laterality.RIGHT):
                drawn = [one for one in drawn if one.laterality == finding.laterality] or drawn
            if finding.severity is not None and any(one.severity for one in drawn):
                assert finding.severity in {one.severity for one in drawn}, finding
            sites = {one.site for one in drawn} - {None}
            if finding.sites and sites:
                assert {*finding.sites} & {*sites, "upper_lung", "lung_base"}, finding


def test_reports_name_no_view_that_was_not_taken(reports) -> None:
    for index, (_, text, _) in enumerate(reports):
        views = ("PA", "AP", "LL")[index % 3]
        lower = text.lower()
        if views != "LL":
            assert not re.search(r"lateral (view|chest)|pa and lat|two views|both views", lower), text
        if views != "AP":
            assert "portable" not in lower, text


def test_no_sentence_calls_normal_what_is_not(reports) -> None:
    for lesions, text, _ in reports:
        shown = {one.category for one in lesions}
        lower = text.lower()
        if "pleural_effusion" in shown:
            assert "costophrenic angles are sharp" not in lower
        if "rib_fracture" in shown:
            assert "bones are intact" not in lower and "no acute osseous" not in lower
        if shown & {"edema", "interstitial_opacity", "mass", "atelectasis", "cavity"}:
            assert not re.search(r"lungs are (grossly )?clear", lower)


def test_what_is_not_drawn_is_never_stated_as_present(reports) -> None:
    for lesions, _, findings in reports:
        drawn = {(lesion.category, lesion.laterality) for lesion in lesions}
        for finding in findings:
            if finding.category in CATEGORIES and finding.certainty == Certainty.PRESENT:
                sides = [finding.laterality]
                if finding.laterality == Laterality.BILATERAL:
                    sides = [Laterality.LEFT, Laterality.RIGHT]
                if finding.laterality is None:
                    assert finding.category in {category for category, _ in drawn}
                    continue
                assert all((finding.category, side) in drawn for side in sides)
            if finding.category in CATEGORIES and finding.certainty == Certainty.ABSENT:
                assert (finding.category, finding.laterality) not in drawn
                if finding.laterality is None:
                    assert finding.category not in {category for category, _ in drawn}


def test_what_only_the_text_names_never_contradicts_the_image(reports) -> None:
    ontology = load_ontology()
    for lesions, _, findings in reports:
        said = [(finding.category, str(finding.certainty)) for finding in findings]
        for category in CATEGORIES:
            drawn = any(lesion.category == category for lesion in lesions)
            assert category_truth(said, category, ontology) != (ABSENT if drawn else PRESENT), (category, said)


def test_reports_of_phantoms_pass_ingest_but_for_nothing(reports) -> None:
    for _, text, _ in reports:
        report = judge(Source("r", "s", "p", "table"), clean_text(text))
        assert isinstance(report, RawReport) and report.text == text and report.role == "report", text


def test_extras_speak_the_language_of_the_ontology() -> None:
    ontology = load_ontology()
    extras = load_extras()
    assert len({extra.category for extra in extras}) > 45
    for extra in extras:
        assert extra.category in ontology.categories
        assert {str(slot.value) for slot in extra.sites} <= ontology.sites.keys()
        assert {str(slot.value) for slot in extra.degrees} <= ontology.severities.keys()
        for form in extra.forms:
            assert form.count("<") == form.count(">") == 1
            assert ("{site}" not in form or extra.sites) and ("{position}" not in form or extra.positions)
    for shown in (CATEGORIES, BASIC_CATEGORIES):
        kin = {name for one in shown for name in (*ontology.ancestors(one), *ontology.descendants(one), one)}
        left = {extra.category for extra in unrelated(shown)}
        assert not kin & left and len(left) > 12


def test_every_drawn_category_has_words_of_its_own() -> None:
    for category in CATEGORIES:
        if category in NOUNS:
            continue
        for index in range(40):
            lesions = sample_study(5, index, bedside=True, categories=(category,), prevalence=0.9)
            for one in lesions:
                assert forms_for(extras_by_category()[category], one), one


def test_text_alone_has_all_phenomena() -> None:
    made = [make_report(3, index) for index in range(1500)]
    findings = [finding for report in made for finding in report.findings]
    assert len({finding.category for finding in findings}) > 45
    assert {finding.change for finding in findings} >= {None, *Change}
    assert all(finding.certainty == Certainty.ABSENT for finding in findings if finding.change == Change.RESOLVED)
    assert {finding.position for finding in findings} >= {"above_carina", "superior_vena_cava", "stomach"}
    texts = [report.text for report in made]
    for phrase in PHENOMENA:
        assert any(re.search(phrase, text) for text in texts), phrase
    assert any(text.isupper() for text in texts)
    assert any(not report.findings or all(f.certainty == Certainty.ABSENT for f in report.findings) for report in made)


def test_sentences_repeat_as_in_real_reports() -> None:
    """Real collections of a few thousand reports have about 41 % distinct sentences and a Heaps exponent above .8."""
    seen: set[str] = set()
    total, points = 0, []
    for index in range(2400):
        text = make_report(4, index).text
        for sentence in report_sentences(text, split_sections(text)):
            seen.add(sentence.text)
            total += 1
        if index + 1 in (600, 2400):
            points.append((total, len(seen)))
    (few, distinct_few), (many, distinct_many) = points
    assert 0.35 < distinct_many / many < 0.47 and 5 < many / 2400 < 7
    assert 0.75 < math.log(distinct_many / distinct_few) / math.log(many / few) < 0.88


def test_words_of_a_coordination_belong_where_the_grammar_puts_them() -> None:
    writer = ReportWriter()
    both = Slot("laterality", "bilateral", Laterality.BILATERAL)
    slots = {"laterality": both, "degree@0": Slot("size", "small", "small")}
    writer.state("{degree@0} {laterality} <effusions> and <atelectasis>.", ("pleural_effusion", "atelectasis"), slots)
    effusion, atelectasis = writer.findings
    assert writer.text == "Small bilateral effusions and atelectasis."
    assert (effusion.size, effusion.laterality) == ("small", Laterality.BILATERAL)
    assert (atelectasis.size, atelectasis.laterality) == (None, Laterality.BILATERAL)


def test_one_word_may_fill_two_slots() -> None:
    writer = ReportWriter()
    slots = {"site": Slot("site", "RLL", "lower_lobe", (("laterality", "right"),))}
    writer.state("{a} {site} <nodule>.", ("nodule",), slots)
    (finding,) = writer.findings
    assert writer.text == "An RLL nodule."
    assert (finding.laterality, finding.sites) == (Laterality.RIGHT, ("lower_lobe",))
    assert [(one.slot, one.start, one.end) for one in finding.evidence if one.slot != "mention"] == [
        ("site", 3, 6),
        ("laterality", 3, 6),
    ]


def test_typos_move_spans_with_their_words() -> None:
    kinds = set()
    for seed in range(60):
        text, spans, mentions = misspell(
            "a small left effusion today",
            [("degree", 2, 7), ("when", 22, 27)],
            [(13, 21)],
            Dice(np.random.default_rng(seed)),
        )
        kinds.add(len(text))
        ((_, start, end), (_, later, last)), ((begin, stop),) = spans, mentions
        assert text[start:end] == "small" and text[later:last] == "today"
        assert text[begin:stop] != "effusion" and text[begin] == "e" and text[stop - 1] == "n"
    assert kinds == {26, 27, 28}


def test_typos_are_rare_and_keep_the_truth() -> None:
    lesions = (Lesion(category="cardiomegaly", severity="severe"),)
    text, findings = write_report(lesions, np.random.default_rng(5), typos=1.0)
    assert any(finding.category == "cardiomegaly" and finding.certainty == Certainty.PRESENT for finding in findings)
    for finding in findings:
        for one in finding.evidence:
            assert text[one.start : one.end].strip() == text[one.start : one.end] != ""


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
    texts = [text for _, text, _ in reports] + [make_report(6, index).text for index in range(400)]
    for text in texts:
        assert not re.search(
            r"[^:\n]  | [.,;]|[{}<>]|\.\.|\ba [aeiou8]|\ba 1[18]\b"
            r"|PHRASE|ISARE|MENTIONS|TLEVEL",
            text,
        ), text
        assert text.isupper() or not re.search(r"ARTICLE|NOUN|NUM\b|RIB\b|EDEMA", text), text
        assert not text.endswith((" ", "\n"))
        assert [one.name for one in split_sections(text)][-2:] == ["findings", "impression"], text


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
