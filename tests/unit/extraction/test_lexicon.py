"""The rule engine on sentences written for these tests: scope, hedges and attachment, phenomenon by phenomenon."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfilip.extraction.lexicon import LexiconEngine
from medfilip.extraction.terms import TermFinder
from medfilip.findings.ontology import load_ontology

ENGINE = LexiconEngine()
_QUALIFIERS = ("severity", "size", "size_mm", "laterality", "sites", "patterns", "change", "chronicity", "hedge")


def found(sentence: str) -> dict[str, str]:
    return {row["category"]: str(row["certainty"]) for row in ENGINE.extract(sentence).findings}


def qualifiers(sentence: str, category: str) -> dict[str, Any]:
    (row,) = [row for row in ENGINE.extract(sentence).findings if row["category"] == category]
    return {slot: row[slot] for slot in _QUALIFIERS if row[slot]}


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("no pneumothorax or pleural effusion", {"pneumothorax": "absent", "pleural_effusion": "absent"}),
        ("pneumothorax is not seen", {"pneumothorax": "absent"}),
        ("the effusion has resolved", {"pleural_effusion": "absent"}),
        ("no change in the hiatal hernia", {"hiatal_hernia": "present"}),
        ("no consolidation but there is atelectasis", {"consolidation": "absent", "atelectasis": "present"}),
        ("possible pneumonia", {"pneumonia": "uncertain"}),
        ("pneumonia cannot be excluded", {"pneumonia": "uncertain"}),
        ("probable atelectasis", {"atelectasis": "present"}),
        ("atelectasis versus pneumonia", {"atelectasis": "present", "pneumonia": "present"}),
        ("opacity may represent pneumonia", {"lung_opacity": "present", "pneumonia": "uncertain"}),
        ("recommend ct to evaluate for mass", {}),
        ("heart size is normal", {"cardiomegaly": "absent"}),
        ("the cardiac silhouette is mildly enlarged", {"cardiomegaly": "present"}),
        ("the lungs are clear", {"lung_opacity": "absent"}),
        ("low lung volumes", {"hypoinflation": "present"}),
        ("fracture of the left sixth rib", {"rib_fracture": "present"}),
        ("calcified granuloma", {"calcified_granuloma": "present"}),
        ("fractures of the posterior left 4th, 5th, and 6th ribs", {"rib_fracture": "present"}),
        ("fractured sternotomy wires", {"sternotomy_wires": "present"}),
        ("fracture of the central venous catheter", {"central_venous_catheter": "present"}),
        ("central venous catheter fracture near the first rib", {"central_venous_catheter": "present"}),
        ("pneumonia is difficult to completely exclude", {"pneumonia": "uncertain"}),
        (
            "opacity due to atelectasis, pneumonia is possible",
            {"lung_opacity": "present", "atelectasis": "present", "pneumonia": "uncertain"},
        ),
        ("nearly resolved pneumothorax", {"pneumothorax": "present"}),
        ("alveolar and interstitial opacities", {"interstitial_opacity": "present", "lung_opacity": "present"}),
        ("a masslike opacity", {"lung_opacity": "present", "mass": "present"}),
        ("calcified left lung and hilar granulomas", {"calcified_granuloma": "present"}),
        ("bilateral degenerative changes", {"arthritis": "present"}),
        ("lucent lesion in the humeral head", {"bone_lucency": "present"}),
        ("pneumothorax: none", {"pneumothorax": "absent"}),
        ("pneumothorax - none", {"pneumothorax": "absent"}),
        ("pleural effusion: small, left", {"pleural_effusion": "present"}),
        ("effusion / pneumothorax: negative", {"pleural_effusion": "absent", "pneumothorax": "absent"}),
        ("negative for: pneumothorax", {"pneumothorax": "absent"}),
        ("tubes and lines: right picc", {"picc": "present"}),
        ("left lower lobe pneumonia: new consolidation", {"pneumonia": "present", "consolidation": "present"}),
        ("heart size is difficult to assess, but appears enlarged", {"cardiomegaly": "present"}),
        ("a skin fold mimics a pneumothorax", {"pneumothorax": "absent"}),
        ("enteric tube with its side port in the stomach", {"enteric_tube": "present"}),
        ("likely atelectasis, and a small effusion", {"atelectasis": "present", "pleural_effusion": "present"}),
        ("cardiomegaly with possible mild edema", {"cardiomegaly": "present", "edema": "uncertain"}),
        ("atelectasis, possible small effusion", {"atelectasis": "present", "pleural_effusion": "uncertain"}),
        ("effusion and edema are possible", {"pleural_effusion": "uncertain", "edema": "uncertain"}),
        ("effusion with consolidation not excluded", {"pleural_effusion": "present", "consolidation": "uncertain"}),
        ("the lungs are otherwise clear", {"lung_opacity": "absent"}),
        ("hyperinflated but clear lungs", {"hyperinflation": "present", "lung_opacity": "absent"}),
        ("bulky hila, ? lymphadenopathy", {"hilar_enlargement": "present", "lymphadenopathy": "uncertain"}),
        ("heart size is hard to assess given large left effusion", {"pleural_effusion": "present"}),
        ("enteric tube tip not seen", {"enteric_tube": "present"}),
        ("lines and tubes are unchanged", {}),
        (
            "lung volumes are lower with increased interstitial markings",
            {"hypoinflation": "present", "interstitial_opacity": "present"},
        ),
        ("no suspicious bone lesions", {}),
        ("pneumonia is less likely", {"pneumonia": "uncertain"}),
        ("heart size is exaggerated by technique", {}),
        ("no acute fracture with old left rib fractures", {"fracture": "absent", "rib_fracture": "present"}),
        ("no more than a trace effusion", {"pleural_effusion": "present"}),
        ("on the prior exam there was an effusion, which has resolved", {"pleural_effusion": "absent"}),
        ("pneumothorax after chest tube removal", {"pneumothorax": "present", "chest_tube": "absent"}),
        (
            "no pneumothorax, and the left effusion has nearly resolved",
            {"pneumothorax": "absent", "pleural_effusion": "present"},
        ),
        ("the bony thorax is intact", {}),
        ("normal study", {}),
    ],
)
def test_categories_and_certainty(sentence: str, expected: dict[str, str]) -> None:
    assert found(sentence) == expected


@pytest.mark.parametrize(
    ("sentence", "category", "expected"),
    [
        ("small left pleural effusion", "pleural_effusion", {"size": "small", "laterality": "left"}),
        (
            "bibasilar atelectasis and small right effusion",
            "atelectasis",
            {"laterality": "bilateral", "sites": ["lung_base"]},
        ),
        ("opacity in the right upper lobe", "lung_opacity", {"laterality": "right", "sites": ["upper_lobe"]}),
        (
            "an 8 mm nodule in the left mid lung",
            "nodule",
            {"size_mm": 8.0, "laterality": "left", "sites": ["mid_lung"]},
        ),
        ("a 1.5 cm nodule", "nodule", {"size_mm": 15.0}),
        ("moderate cardiomegaly, unchanged", "cardiomegaly", {"severity": "moderate", "change": "unchanged"}),
        ("rll consolidation", "consolidation", {"laterality": "right", "sites": ["lower_lobe"]}),
        ("patchy consolidation", "consolidation", {"patterns": ["patchy"]}),
        ("old healed rib fractures", "rib_fracture", {"chronicity": "chronic"}),
        (
            "opacity in the left base, which may represent atelectasis",
            "atelectasis",
            {"laterality": "left", "sites": ["lung_base"], "hedge": "possible"},
        ),
        (
            "small right effusion and a nodule in the left apex",
            "nodule",
            {"laterality": "left", "sites": ["lung_apex"]},
        ),
        ("opacity in the lower left lung", "lung_opacity", {"laterality": "left", "sites": ["lower_lung"]}),
        ("calcified right hilar nodule", "nodule", {"laterality": "right", "sites": ["hilum"]}),
        ("unremarkable hilar contours, right chest port", "chest_port", {"laterality": "right"}),
        ("atelectasis in the left base, small effusion", "atelectasis", {"laterality": "left", "sites": ["lung_base"]}),
        ("atelectasis in the left base, small effusion", "pleural_effusion", {"size": "small"}),
        ("nodule (8 mm) in the left apex", "nodule", {"size_mm": 8.0, "laterality": "left", "sites": ["lung_apex"]}),
        (
            "effusion is moderate and slightly increased",
            "pleural_effusion",
            {"severity": "moderate", "change": "increased"},
        ),
        ("chest tube unchanged, decreased effusion", "pleural_effusion", {"change": "decreased"}),
        (
            "biapical scarring, more pronounced on the right",
            "scarring",
            {"laterality": "bilateral", "sites": ["lung_apex"]},
        ),
        (
            "left apical nodule, which is unchanged",
            "nodule",
            {"laterality": "left", "sites": ["lung_apex"], "change": "unchanged"},
        ),
        (
            "opacity at the left base obscures the hemidiaphragm",
            "lung_opacity",
            {"laterality": "left", "sites": ["lung_base"]},
        ),
        ("previously moderate left effusion is now small", "pleural_effusion", {"size": "small", "laterality": "left"}),
        ("the heart is moderately to severely enlarged", "cardiomegaly", {"severity": "severe"}),
        ("copd without acute abnormality", "copd", {}),
        ("opacity in the left base xxxx edema", "lung_opacity", {"laterality": "left", "sites": ["lung_base"]}),
    ],
)
def test_qualifiers_go_to_the_right_noun(sentence: str, category: str, expected: dict[str, Any]) -> None:
    assert qualifiers(sentence, category) == expected


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("bilateral effusions, moderate on the right and small on the left", {"right": "moderate", "left": "small"}),
        ("effusions, right moderate and left small", {"right": "moderate", "left": "small"}),
        ("the left effusion is small and the right is moderate", {"right": "moderate", "left": "small"}),
        ("the right effusion is unchanged and the left is increased", {"right": "unchanged", "left": "increased"}),
    ],
)
def test_each_side_has_a_word_of_its_own(sentence: str, expected: dict[str, str]) -> None:
    rows = ENGINE.extract(sentence).findings
    assert {row["laterality"]: row["size"] or row["severity"] or row["change"] for row in rows} == expected
    for row in rows:
        assert [span["slot"] for span in row["evidence"]].count("laterality") == 1


def test_the_side_of_a_heading_is_that_of_all_behind_it() -> None:
    rows = ENGINE.extract("left lung: small effusion, basilar atelectasis, right rib fracture").findings
    sides = {row["category"]: row["laterality"] for row in rows}
    assert sides == {"pleural_effusion": "left", "atelectasis": "left", "rib_fracture": "right"}


def test_the_lingula_is_left_whatever_stands_beside_it() -> None:
    rows = ENGINE.extract("right middle lobe and lingular opacities").findings
    assert {(row["laterality"], *row["sites"]) for row in rows} == {("right", "middle_lobe"), ("left", "lingula")}


def test_zones_share_the_noun_behind_them() -> None:
    rows = ENGINE.extract("opacities in the right upper and left lower lobes").findings
    assert {(row["laterality"], *row["sites"]) for row in rows} == {("right", "upper_lobe"), ("left", "lower_lobe")}


def test_a_side_is_not_shared_with_what_stands_in_the_midline() -> None:
    for sentence in ("calcified left hilar and mediastinal nodes", "calcified mediastinal and left hilar nodes"):
        rows = ENGINE.extract(sentence).findings
        assert {(row["sites"][0], row["laterality"]) for row in rows} == {("hilum", "left"), ("mediastinum", None)}


def test_evidence_points_at_the_words() -> None:
    sentence = "no large left pleural effusion"
    (row,) = ENGINE.extract(sentence).findings
    words = {span["slot"]: sentence[span["start"] : span["end"]] for span in row["evidence"]}
    assert words == {"mention": "pleural effusion", "certainty": "no", "size": "large", "laterality": "left"}


@pytest.mark.parametrize("category", sorted(load_ontology().categories))
def test_every_category_is_reached_from_text(category: str) -> None:
    terms = load_ontology().categories[category].terms
    assert any(category in found(term) for term in terms)


WORDS = st.sampled_from(["no", "left", "effusion", "or", "and", "pneumothorax", ",", ";", "may", "represent"])


@given(st.text(max_size=200) | st.lists(WORDS).map(" ".join))
def test_any_text_is_survived_and_spans_stay_inside(text: str) -> None:
    for row in ENGINE.extract(text).findings:
        for span in row["evidence"]:
            assert 0 <= span["start"] < span["end"] <= len(text)


def test_terms_match_whole_words_and_the_longest_wins() -> None:
    finder = TermFinder([("rib", "site", "ribs"), ("rib fracture", "category", "x"), ("fracture", "category", "y")])
    terms = finder.find("ribbon, rib fracture")
    assert [(term.start, term.value) for term in terms["category"]] == [(8, "x")]
    assert [term.start for term in terms["site"]] == [8]
