"""Zero-shot prompts: worded as in training, for ids, labels, fine-grained and free texts."""

from __future__ import annotations

import pytest

from medfilip import ErrorCode, MedfilipError
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.inject import training_texts
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.knowledge.prompts import prompts, read_label

ONTOLOGY, KNOWLEDGE = load_ontology(), load_knowledge()


def of(label):
    return prompts(label, KNOWLEDGE, ONTOLOGY)


@pytest.mark.parametrize("label", ["pleural_effusion", "pleural effusion", "Pleural  Effusion", "pleural fluid"])
def test_id_label_and_synonym_give_the_same_prompts(label):
    assert of(label) == of("pleural_effusion")


@pytest.mark.parametrize("mode", ["conditioned", "category", "none"])
def test_the_prompts_of_a_category_are_training_texts_of_the_same_mode(mode):
    written = prompts("nodule", KNOWLEDGE, ONTOLOGY, mode=mode)
    for certainty, texts in (("present", written.positive), ("absent", written.negative)):
        finding = {"category": "nodule", "certainty": certainty}
        trained = training_texts(finding, KNOWLEDGE, ONTOLOGY, mode=mode, variants=20)
        assert set(texts) <= set(trained) and texts[0] == trained[0]
    assert prompts("no nodule", KNOWLEDGE, ONTOLOGY, mode=mode).positive == written.negative


def test_nothing_in_prompts_is_sampled():
    attributes = KNOWLEDGE.entry("nodule").phrases({"category": "nodule"})
    partly = [text for text in of("nodule").positive if any(phrase in text for phrase in attributes)]
    assert len(partly) == 1 and all(phrase in partly[0] for phrase in attributes)


def test_a_fine_grained_label_uses_its_own_attributes():
    written = of("severe right effusion in the lung base")
    clause = "severe right pleural effusion in the lung base"
    assert clause in written.positive and all(text.startswith(clause) for text in written.positive)
    assert any("fluid over most of the hemithorax" in text for text in written.positive)
    assert written.negative == of("pleural_effusion").negative


def test_free_text_is_kept_and_negated():
    assert of("surgical emphysema of unknown make").positive == ("surgical emphysema of unknown make",)
    assert of("tree in bud").negative == ("no tree in bud", "no evidence of tree in bud")


def test_a_negated_label_exchanges_the_prompts():
    plain, negated = of("pneumothorax"), of("No evidence of pneumothorax")
    assert (negated.positive, negated.negative) == (plain.negative, plain.positive)


@pytest.mark.parametrize("label", ["", "   ", "x" * 301])
def test_a_label_out_of_bounds_is_refused(label):
    with pytest.raises(MedfilipError) as caught:
        of(label)
    assert caught.value.code == ErrorCode.REQUEST_INVALID


def test_reading_a_label():
    assert read_label("mild to moderate patchy consolidation", ONTOLOGY) == {
        "category": "consolidation", "certainty": "present", "severity": "moderate", "patterns": ["patchy"],
        "sites": [],
    }  # fmt: skip
    assert read_label("interstitial opacity", ONTOLOGY)["category"] == "interstitial_opacity"
    assert read_label("nodule in the kitchen", ONTOLOGY) is None
