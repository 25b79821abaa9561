"""The challenge set as a floor: no phenomenon may be solved worse than it has been."""

from __future__ import annotations

from collections import Counter

import pytest

from medfilip.extraction.lexicon import LexiconEngine
from medfilip.findings.ontology import load_ontology
from tests.challenge.scoring import ANY, accuracy, read_challenges

# Solved sentences of each phenomenon; raise a number when the rules get better, never lower one to pass.
FLOOR = {
    "double negation": 11,
    "no longer": 12,
    "rule out": 13,
    "versus and or": 11,
    "possible": 15,
    "probable": 11,
    "observation before its explanation": 11,
    "resolved": 12,
    "post-surgical absence and removal": 13,
    "coordination": 14,
    "left greater than right": 11,
    "side far from its finding": 10,
    "technical limitation": 9,
    "recommendation": 11,
    "history": 11,
    "change over time": 16,
    "severity words": 18,
    "size in numbers": 10,
    "sites": 15,
    "states of anatomy": 22,
    "normal statements": 16,
    "devices": 15,
    "MIMIC-style wording": 12,
    "British spelling": 9,
    "upper case": 10,
    "typos": 11,
    "abbreviations": 12,
    "removed words": 10,
    "another part of the body": 10,
    "several clauses": 13,
    "patterns and special nouns": 20,
    "templates and marks": 15,
    "one side apart from the other": 10,
}


@pytest.fixture(scope="module")
def scores() -> dict[str, tuple[int, int]]:
    return accuracy(LexiconEngine())


def test_the_set_is_wide_and_speaks_of_known_things() -> None:
    challenges = list(read_challenges())
    assert len(challenges) >= 400 and len({c.phenomenon for c in challenges}) >= 25
    assert not [text for text, count in Counter(c.text for c in challenges).items() if count > 1]
    ontology = load_ontology()
    for challenge in challenges:
        for finding in challenge.expected:
            assert finding.category in ontology.categories, challenge.text
            sites = finding.slots["sites"]
            assert sites is ANY or sites <= set(ontology.sites), challenge.text


@pytest.mark.parametrize("phenomenon", sorted(FLOOR))
def test_no_phenomenon_is_solved_worse_than_before(phenomenon: str, scores: dict[str, tuple[int, int]]) -> None:
    assert scores[phenomenon][0] >= FLOOR[phenomenon]


def test_every_phenomenon_has_a_floor(scores: dict[str, tuple[int, int]]) -> None:
    assert set(scores) == set(FLOOR)
