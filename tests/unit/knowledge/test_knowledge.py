"""The knowledge file: complete, consistent with the ontology, and refused with a clear error when it is not."""

from __future__ import annotations

import pytest

from medfilip import ErrorCode, MedfilipError
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.knowledge import Attribute, load_knowledge
from medfilip.knowledge.reading import parse_documents, parse_knowledge


def test_every_category_has_an_entry_or_a_reason_for_having_none():
    knowledge, ontology = load_knowledge(), load_ontology()
    assert set(knowledge.entries) | set(knowledge.without_entry) == set(ontology.categories)
    assert not set(knowledge.entries) & set(knowledge.without_entry)
    assert len(knowledge.entries) >= 100 and all(len(reason) > 20 for reason in knowledge.without_entry.values())


def test_every_entry_has_three_distinct_paraphrases_attributes_and_sources():
    for category, entry in load_knowledge().entries.items():
        assert len(set(entry.descriptions)) >= 3, category
        assert len(entry.phrases({"category": category})) >= 3, category
        assert entry.sources and entry.review == "unreviewed", category


def test_no_two_categories_look_the_same():
    """A category that was never trained on is told from its attributes alone."""
    seen = {}
    for category, entry in load_knowledge().entries.items():
        told = frozenset(entry.phrases({"category": category}))
        assert told not in seen, (category, seen[told])
        seen[told] = category


def test_a_category_without_entry_is_none():
    assert load_knowledge().entry("thrombosis") is None


def test_the_most_telling_phrase_of_each_axis_comes_before_the_second_ones():
    entry = load_knowledge().entry("pneumothorax")
    assert entry is not None
    phrases = entry.phrases({"severity": "severe"})
    assert phrases.index("fine white pleural line") < phrases.index("mediastinum pushed to the other side")
    assert phrases[0] == "empty black space beside the lung"


def test_no_two_categories_share_a_description():
    descriptions = [text for entry in load_knowledge().entries.values() for text in entry.descriptions]
    assert len(descriptions) == len(set(descriptions))


@pytest.mark.parametrize(
    ("finding", "expected"),
    [
        ({"severity": "severe", "sites": ["lung_apex"], "patterns": ["hazy"]}, True),
        ({"size": "large", "sites": ["lung_apex"], "patterns": ["hazy"]}, True),
        ({"severity": "mild", "sites": ["lung_apex"], "patterns": ["hazy"]}, False),
        ({"severity": "severe", "sites": ["lung_base"], "patterns": ["hazy"]}, False),
        ({"severity": "severe", "sites": ["lung_apex"], "patterns": None}, False),
    ],
)
def test_every_condition_of_an_attribute_must_hold(finding, expected):
    attribute = Attribute(text="text", severities=("severe",), sites=("lung_apex",), patterns=("hazy",))
    assert attribute.fits(finding) is expected


def test_a_conditioned_phrase_replaces_the_general_ones_of_its_axis():
    entry = load_knowledge().entry("pleural_effusion")
    assert entry is not None
    mild, severe = entry.phrases({"severity": "mild"}), entry.phrases({"severity": "severe"})
    assert "costophrenic angle just filled" in mild
    assert "fluid over most of the hemithorax" in severe
    assert "dependent at the lung base" not in mild + severe


VALID = """
version: 1
entries:
  nodule:
    review: unreviewed
    attributes: {density: [solid], shape: [{text: round, severities: [mild]}]}
    descriptions: [one, two, three]
"""


def test_the_fingerprint_follows_the_content():
    ontology = load_ontology()
    assert parse_knowledge(VALID, ontology).fingerprint == parse_knowledge(VALID, ontology).fingerprint
    changed = parse_knowledge(VALID.replace("solid", "dense"), ontology)
    assert changed.fingerprint != parse_knowledge(VALID, ontology).fingerprint


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("  nodule:", "  nodul:", "category nodul"),
        ("  nodule:", "  'other:':", "category other:"),
        ("version: 1", "version: one", "version"),
        ("    review:", "    review: reviewed\n    review:", "twice"),
        ("version: 1", "versoin: 1", "versoin"),
        ("[mild]", "[mildish]", "severity mildish"),
        ("severities: [mild]", "sites: [liver]", "site liver"),
        ("three]", "]", "descriptions"),
        ("density", "colour", "colour"),
    ],
)
def test_an_invalid_file_is_refused_by_name(old, new, named):
    with pytest.raises(MedfilipError, match=named) as caught:
        parse_knowledge(VALID.replace(old, new), load_ontology())
    assert caught.value.code == ErrorCode.CONFIG_INVALID


def test_an_entry_stands_in_one_file_only():
    with pytest.raises(MedfilipError, match=r"nodule.*another file"):
        parse_documents({"a.yaml": VALID, "b.yaml": VALID}, load_ontology())


def test_files_are_merged():
    other = VALID.replace("version: 1", "sources: {a: A book.}").replace("nodule", "'other:crazy paving'")
    knowledge = parse_documents({"a.yaml": VALID, "b.yaml": other}, load_ontology())
    assert list(knowledge.entries) == ["nodule", "other:crazy paving"] and knowledge.sources == {"a": "A book."}
