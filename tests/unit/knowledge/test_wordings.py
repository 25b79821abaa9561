"""Other wordings of presence and absence: what the warm-up shows, and what it keeps for evaluation."""

from __future__ import annotations

import pytest

from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.inject import training_texts
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.knowledge.wordings import is_shown, wordings

ONTOLOGY, KNOWLEDGE = load_ontology(), load_knowledge()


def test_a_finding_is_said_with_its_slots_in_the_words_of_its_certainty():
    effusion = {"category": "pleural_effusion", "laterality": "left", "severity": "mild"}
    present = wordings({**effusion, "certainty": "present"}, ONTOLOGY)
    absent = wordings({**effusion, "certainty": "absent"}, ONTOLOGY)
    assert "mild left pleural effusion is present" in present and "without mild left pleural effusion" in absent
    assert not set(present) & set(absent)
    assert wordings({**effusion, "certainty": "uncertain"}, ONTOLOGY) == ()


@pytest.mark.parametrize("category", ["pleural_effusion", "scoliosis"])
@pytest.mark.parametrize("certainty", ["present", "absent"])
def test_no_training_text_is_one_of_them(category, certainty):
    finding = {"category": category, "certainty": certainty}
    clauses = {text.partition(". ")[0] for text in training_texts(finding, KNOWLEDGE, ONTOLOGY, variants=50)}
    assert not clauses & set(wordings(finding, ONTOLOGY))


def test_what_is_shown_is_known_and_what_is_held_out_is_not():
    assert all(map(is_shown, ["{}", "no {}", "no evidence of {}", "there is no {}.", "{} is absent"]))
    assert not any(map(is_shown, ["free of {}", "a chest radiograph without {}", "{} is not seen on the frontal view"]))
