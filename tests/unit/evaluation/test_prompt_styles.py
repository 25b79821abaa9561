"""Wordings: each says the same in other words, and what they change is measured."""

from __future__ import annotations

import numpy as np
import pytest

from medfilip.evaluation.prompt_styles import ATTRIBUTES, CANONICAL, ENSEMBLE, evaluate_robustness, write_styles
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.knowledge.prompts import prompts
from medfilip.model.diagnoser import Diagnoser

ONTOLOGY, KNOWLEDGE = load_ontology(), load_knowledge()


@pytest.mark.parametrize("category", sorted(ONTOLOGY.categories))
def test_every_style_asks_both_ways(category):
    written = write_styles(category, KNOWLEDGE, ONTOLOGY)
    assert len(written) >= 8 and written[CANONICAL] == prompts(category, KNOWLEDGE, ONTOLOGY)
    for item in written.values():
        assert item.positive and item.negative and not set(item.positive) & set(item.negative)
    assert set(written["name"].positive) < set(written[ENSEMBLE].positive)


def test_a_description_does_not_name_the_category():
    written = write_styles("pleural_effusion", KNOWLEDGE, ONTOLOGY)[ATTRIBUTES]
    assert written.positive and not any("effusion" in text for text in written.positive)
    assert all(text.startswith("no ") for text in written.negative)


def test_the_spread_is_that_of_single_styles(tiny_checkpoint):
    diagnoser = Diagnoser.load(tiny_checkpoint)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(40, 16)).astype(np.float32)
    truth = rng.integers(0, 2, (40, 2))
    found = evaluate_robustness(
        diagnoser, images, truth, [str(i) for i in range(40)], labels=["mass", "edema"],
        write=lambda label: write_styles(label, KNOWLEDGE, ONTOLOGY), resamples=20,
    )  # fmt: skip
    values = [item.pnc_auroc.value for item in found.styles if item.style != ENSEMBLE]
    assert found.pnc_spread == pytest.approx(max(values) - min(values)) and found.pnc_spread > 0
    assert len(found.styles) >= 8
    assert {item.style for item in found.styles if item.held_out} == {"caption", "seen", "free", "synonyms"}
