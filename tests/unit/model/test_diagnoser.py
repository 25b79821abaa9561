"""The diagnoser: labels in, scores out, without touching the model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medfilip import ErrorCode, MedfilipError
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.model import diagnoser as diagnoser_module
from medfilip.model.calibration import Calibration, Platt
from medfilip.model.checkpoint import Versions, save_checkpoint
from medfilip.model.diagnoser import Diagnoser

LABELS = ["pleural_effusion", "severe left pleural effusion", "tree in bud"]


@pytest.fixture
def diagnoser(model, tmp_path):
    versions = Versions(load_ontology().fingerprint, load_knowledge().fingerprint, synthetic=True)
    curve = Platt(slope=2, intercept=-1, positives=9, negatives=9)
    calibration = Calibration(categories={"pleural_effusion": curve})
    save_checkpoint(tmp_path / "c", model, versions, calibration=calibration)
    return Diagnoser.load(tmp_path / "c")


def pixels(n=3):
    return np.random.default_rng(0).normal(size=(n, 1, 32, 32)).astype(np.float32)


def test_scores(diagnoser):
    embedding = diagnoser.encode_images(pixels())
    scores = diagnoser.score(embedding, diagnoser.encode_labels(LABELS))
    assert embedding.shape == (3, 16) and embedding.dtype == np.float32
    assert scores.probability_NL.shape == scores.positive_NL.shape == scores.negative_NL.shape == (3, 3)
    assert scores.basis_L == ("category", "none", "none") and scores.calibrated == (True, False, False)
    margin = scores.positive_NL - scores.negative_NL
    np.testing.assert_allclose(scores.probability_NL[:, 0], 1 / (1 + np.exp(-(2 * margin[:, 0] - 1))))
    np.testing.assert_allclose(scores.probability_NL[:, 1], 1 / (1 + np.exp(-margin[:, 1] / 2)))


def test_the_raw_score_is_the_logit_of_the_prompt_ensemble(diagnoser):
    bank = diagnoser.encode_labels(["tree in bud"])
    image, model = diagnoser.encode_images(pixels()), diagnoser.model
    with torch.no_grad():
        expected = model.logits(torch.from_numpy(image), model.encode_text(["tree in bud"]))
    np.testing.assert_allclose(diagnoser.score(image, bank).positive_NL, expected.numpy(), rtol=1e-4, atol=1e-4)


def test_a_negated_label_has_the_opposite_margin(diagnoser):
    bank = diagnoser.encode_labels(["nodule", "no nodule"])
    margins = diagnoser.score(diagnoser.encode_images(pixels()), bank).margins
    np.testing.assert_allclose(margins[:, 0], -margins[:, 1])


def test_ids_labels_and_synonyms_share_prompts_and_calibration(diagnoser):
    bank = diagnoser.encode_labels(["pleural_effusion", "Pleural effusion", "pleural fluid"])
    assert bank.categories == ("pleural_effusion",) * 3
    assert np.array_equal(bank.positive_LD[0], bank.positive_LD[2])


def test_prompts_are_embedded_once(diagnoser, monkeypatch):
    first = diagnoser.encode_labels(LABELS)
    monkeypatch.setattr(diagnoser.model, "encode_text", None)
    again = diagnoser.encode_labels(LABELS[::-1])  # another bank of the same prompts
    assert np.array_equal(first.positive_LD, again.positive_LD[::-1]) and first.fingerprint != again.fingerprint


def test_banks_are_kept_up_to_a_number_of_them(diagnoser, monkeypatch):
    monkeypatch.setattr(diagnoser_module, "_CACHED_BANKS", 2)
    first = diagnoser.encode_labels(["mass"])
    assert diagnoser.encode_labels(("mass",)) is first
    for label in ("nodule", "edema", "mass"):
        diagnoser.encode_labels([label])
    again = diagnoser.encode_labels(["mass"])
    assert again is not first and again.fingerprint == first.fingerprint


def test_scoring_leaves_the_model_as_it_was(diagnoser):
    before = {name: value.clone() for name, value in diagnoser.model.state_dict().items()}
    diagnoser.score(diagnoser.encode_images(pixels(70)), diagnoser.encode_labels(LABELS))
    assert not diagnoser.model.training
    assert all(torch.equal(before[name], value) for name, value in diagnoser.model.state_dict().items())
    assert all(value.grad is None for value in diagnoser.model.parameters())


def test_nothing_in_nothing_out(diagnoser):
    assert diagnoser.encode_images(pixels(0)).shape == (0, 16)
    assert diagnoser.score(diagnoser.encode_images(pixels()), diagnoser.encode_labels([])).probability_NL.shape == (
        3,
        0,
    )


@pytest.mark.parametrize("shape", [(1, 32, 32), (1, 3, 32, 32), (1, 1, 64, 64)])
def test_pixels_of_another_shape_are_refused(diagnoser, shape):
    with pytest.raises(MedfilipError, match="32, 32") as caught:
        diagnoser.encode_images(np.zeros(shape, np.float32))
    assert caught.value.code == ErrorCode.REQUEST_INVALID


def test_another_ontology_is_refused_and_other_knowledge_is_told(model):
    ontology = load_ontology().fingerprint
    with pytest.raises(MedfilipError, match="ontology 0123") as caught:
        Diagnoser(model, versions=Versions("0123", "k", synthetic=True), model_fingerprint="x")
    assert caught.value.code == ErrorCode.CHECKPOINT_INVALID
    assert Diagnoser(model, versions=Versions(ontology, "k", synthetic=True), model_fingerprint="x").knowledge_changed
