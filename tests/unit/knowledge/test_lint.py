"""Lint: the shipped knowledge is clean, and each rule finds what it is for."""

from __future__ import annotations

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.lint import lint, named_categories, negated
from medfilip.knowledge.reading import INSTALLED, inspect_documents, read_knowledge

ONTOLOGY = load_ontology()
GOOD = """
version: 1
sources: {book: A textbook.}
entries:
  nodule:
    review: unreviewed
    sources: [book]
    attributes: {density: [solid], shape: [{text: round, severities: [mild]}]}
    descriptions: [a small round spot in the lung, a dot with a clear edge all around, a tiny sphere in quiet lung]
"""


def problems(text):
    found = lint(*_inspected(text))
    return [problem for problem in found if problem.rule != "missing_entry"]


def _inspected(text):
    knowledge, flaws = inspect_documents({"file.yaml": text}, ONTOLOGY)
    return knowledge, ONTOLOGY, flaws


def test_the_shipped_knowledge_is_clean():
    knowledge, flaws = read_knowledge(INSTALLED, ONTOLOGY)
    assert lint(knowledge, ONTOLOGY, flaws) == []


def test_a_good_file_has_only_warnings_of_what_it_leaves_out():
    assert problems(GOOD) == []
    warnings = lint(*_inspected(GOOD))
    assert [(problem.severity, problem.rule) for problem in warnings] == [("warning", "missing_entry")]
    assert f"{len(ONTOLOGY.categories) - 1} categories" in warnings[0].message
    excused = ", ".join(
        f"{category}: it cannot be seen" for category in list(ONTOLOGY.categories)[2:] if category != "nodule"
    )
    few = lint(*_inspected(GOOD + f"without_entry: {{{excused}}}"))
    assert [problem.category for problem in few] == list(ONTOLOGY.categories)[:2]


@pytest.mark.parametrize(
    ("old", "new", "rule", "axis"),
    [
        ("[solid]", "[solid, Solid]", "duplicate", "density"),
        ("[solid]", "[solid without air]", "negation", "density"),
        ("[solid]", "[like a pneumothorax]", "other_category", "density"),
        ("[solid]", "[solid left lung]", "side", "density"),
        ("a dot with", "what is left with", "side", "descriptions"),
        ("clear edge", "clear edge and no air", "negation", "descriptions"),
        ("clear edge", "clear edge " + "very " * 40, "too_long", "descriptions"),
        ("a small round spot in the lung", "a spot", "short_description", "descriptions"),
        ("sources: [book]", "sources: [bok]", "unknown_source", ""),
        ("    sources: [book]\n", "", "missing_sources", ""),
        (", a tiny sphere in quiet lung", "", "schema", "entries.nodule.descriptions"),
        ("[solid]", f"[{'x' * 61}]", "schema", "entries.nodule.attributes.density.0.text"),
        ("[solid]", "[a1x, b1x, c1x, d1x, e1x, f1x, g1x]", "schema", "entries.nodule.attributes"),
        ("[mild]", "[mildish]", "schema", "entries.nodule.shape"),
        ("entries:", "without_entry: {nodule: because of that}\nentries:", "both", ""),
        ("entries:", "without_entry: {nodul: because of that}\nentries:", "schema", "without_entry"),
        ("version: 1", "version: [", "schema", "file.yaml"),
    ],
)
def test_each_rule_finds_what_it_is_for(old, new, rule, axis):
    found = problems(GOOD.replace(old, new))
    assert (rule, axis) in [(problem.rule, problem.axis) for problem in found]


def test_all_flaws_are_told_at_once():
    broken = GOOD.replace("[solid]", "[so]").replace("[mild]", "[mildish]").replace("unreviewed", "unread")
    assert len(problems(broken)) >= 2


def test_names_of_the_own_family_and_of_signs_may_be_used():
    assert named_categories("nodule of calcium", "calcified_granuloma", ONTOLOGY) == []
    assert named_categories("nodules of calcium", "scoliosis", ONTOLOGY) == ["nodule"]
    assert named_categories("blunted costophrenic angle", "pleural_effusion", ONTOLOGY) == [
        "costophrenic_angle_blunting"
    ]
    signs = ["costophrenic_angle_blunting"]
    assert named_categories("blunted costophrenic angle", "pleural_effusion", ONTOLOGY, signs) == []
    assert named_categories("massive", "pleural_effusion", ONTOLOGY) == []


@pytest.mark.parametrize("text", ["no edge", "edge without blur", "absence of vessels", "lacking vessels", "non-dense"])
def test_denials_are_found(text):
    assert negated(text)


@pytest.mark.parametrize("text", ["normal edge", "nodular", "missing breast outline", "known outline", "knot"])
def test_other_words_are_not_denials(text):
    assert not negated(text)


def test_a_folder_is_one_whole_and_its_files_are_text(tmp_path):
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yaml").write_text(
        GOOD.replace("nodule:", "mass:").replace("version: 1\nsources: {book: A textbook.}\n", "")
    )
    (tmp_path / "c.txt").write_text("no knowledge")
    knowledge, flaws = read_knowledge(str(tmp_path), ONTOLOGY)
    assert list(knowledge.entries) == ["nodule", "mass"] and not flaws
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(MedfilipError) as caught:
        read_knowledge(str(tmp_path), ONTOLOGY)
    assert caught.value.code is ErrorCode.CONFIG_FILE_UNREADABLE
