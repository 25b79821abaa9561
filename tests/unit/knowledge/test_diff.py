"""The difference of two versions of knowledge: what came, what went, what changed, and where."""

from __future__ import annotations

from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.diff import Change, compare
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.knowledge.reading import parse_knowledge

OLD = """
version: 1
entries:
  nodule:
    review: unreviewed
    sources: [book]
    attributes: {density: [solid, dense], shape: [{text: round, severities: [mild]}], margin: [sharp]}
    descriptions: [one, two, three]
  mass:
    review: unreviewed
    attributes: {density: [solid]}
    descriptions: [four, five, six]
"""


def changes(new):
    return compare(parse_knowledge(OLD, load_ontology()), parse_knowledge(new, load_ontology()))


def test_equal_versions_have_no_difference():
    assert changes(OLD) == []
    assert compare(load_knowledge(), load_knowledge()) == []


def test_changes_are_told_by_category_and_axis():
    new = (
        OLD.replace("unreviewed", "reviewed", 1)
        .replace("[solid, dense]", "[solid, bright]")
        .replace("[mild]", "[moderate]")
        .replace("[one, two, three]", "[one, two, seven]")
        .replace("[book]", "[paper]")
        .replace(", margin: [sharp]", "")
        .replace("  mass:", "  cyst:")
    )
    assert changes(new) == [
        Change("nodule", "review", "changed", "unreviewed", "reviewed"),
        Change("nodule", "density", "removed", "dense", ""),
        Change("nodule", "density", "added", "", "bright"),
        Change("nodule", "shape", "changed", "round (severity: mild)", "round (severity: moderate)"),
        Change("nodule", "margin", "removed", "sharp", ""),
        Change("nodule", "descriptions", "removed", "three", ""),
        Change("nodule", "descriptions", "added", "", "seven"),
        Change("nodule", "sources", "removed", "book", ""),
        Change("nodule", "sources", "added", "", "paper"),
        Change("mass", "", "removed", "1 phrases, 3 descriptions", ""),
        Change("cyst", "", "added", "", "1 phrases, 3 descriptions"),
    ]


def test_another_order_is_a_change():
    assert [change.new for change in changes(OLD.replace("[solid, dense]", "[dense, solid]"))] == ["another order"]
