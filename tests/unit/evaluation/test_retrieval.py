"""Retrieval: right numbers on a corpus small enough to check, and chance where nothing is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, ndcg_score

from medfilip.evaluation.retrieval import Statements, evaluate_retrieval
from medfilip.findings.codes import Codebook
from medfilip.findings.ontology import load_ontology
from medfilip.similarity.codes import FindingTensors
from medfilip.similarity.factorised import similarity
from medfilip.similarity.tables import SimilarityWeights, build_tables

CODEBOOK = Codebook.of(load_ontology())
NAMES = ["pleural_effusion", "pneumothorax", "consolidation", "atelectasis", "mass", "nodule"]
KINDS = [
    CODEBOOK.encode({"category": name, "certainty": "present", "laterality": side, "sites": []})
    for name in NAMES
    for side in ("left", "right")
]
ABSENT = CODEBOOK.encode({"category": "cardiomegaly", "certainty": "absent", "sites": []})


def text(code):
    return str(sorted(code.items()))


def corpus(images=40, seed=0):
    rng = np.random.default_rng(seed)
    said = [
        [ABSENT, *(KINDS[i] for i in rng.choice(len(KINDS), rng.integers(0, 4), replace=False))] for _ in range(images)
    ]
    vectors = {text(code): rng.normal(size=24) for code in [*KINDS, ABSENT]}
    vectors = {key: value / np.linalg.norm(value) for key, value in vectors.items()}
    patients = [str(i // 2) for i in range(images)]
    return said, Statements(said, CODEBOOK, text), lambda texts: np.array([vectors[t] for t in texts]), patients, rng


def embed(said, encode, rng, noise):
    found = np.stack([encode([text(code) for code in codes]).sum(axis=0) for codes in said])
    found += noise * rng.normal(size=found.shape)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def test_the_numbers_are_those_of_scikit_learn():
    said, statements, encode, patients, rng = corpus()
    images = embed(said, encode, rng, 0.3)
    found = {item.direction: item for item in evaluate_retrieval(images, statements, encode, patients, resamples=30)}
    rows = [at for at, codes in enumerate(said) if len(codes) > 1]
    kinds = {text(code): code for at in rows for code in said[at][1:]}
    right = np.array([[key in {text(code) for code in said[at]} for key in kinds] for at in rows])
    score = images[rows] @ encode(list(kinds)).T
    flat = [code for at in rows for code in said[at]]
    weights = SimilarityWeights()
    target, mask = similarity(
        FindingTensors.from_rows(flat, CODEBOOK),
        torch.tensor([row for row, at in enumerate(rows) for _ in said[at]]),
        len(rows),
        FindingTensors.from_rows(list(kinds.values()), CODEBOOK),
        tables=build_tables(CODEBOOK, weights),
        weights=weights,
    )
    gain = (target * mask).numpy()
    ways = (("image_to_statement", right, score, gain), ("statement_to_image", right.T, score.T, gain.T))
    for direction, truth, scored, gains in ways:
        result = found[direction]
        assert (result.queries, result.candidates) == truth.shape
        precision = [average_precision_score(t, s) for t, s in zip(truth, scored, strict=True)]
        assert result.mean_average_precision.value == pytest.approx(np.mean(precision))
        assert result.ndcg.value == pytest.approx(ndcg_score(gains, scored, k=10), abs=1e-5)
        for k in (1, 5):
            best = np.argsort(-scored, axis=1)[:, :k]
            assert result.recall[k].value == pytest.approx(np.take_along_axis(truth, best, axis=1).any(axis=1).mean())


def test_reports_that_state_the_same_are_equally_right():
    said, statements, encode, patients, rng = corpus()
    found = {i.direction: i for i in evaluate_retrieval(embed(said, encode, rng, 0), statements, encode, patients)}
    distinct = len({tuple(sorted(map(text, codes))) for codes in said})
    assert found["image_to_report"].distinct_reports == found["image_to_report"].candidates == distinct < len(said)
    assert found["image_to_report"].recall[1].value == 1 == found["report_to_image"].recall[1].value


def test_a_model_that_knows_nothing_is_at_chance():
    _, statements, encode, patients, rng = corpus(images=400)
    noise = rng.normal(size=(400, 24))
    found = {item.direction: item for item in evaluate_retrieval(noise, statements, encode, patients, resamples=50)}
    result = found["image_to_statement"]
    for k in (1, 5):
        assert result.recall[k].value == pytest.approx(result.chance[k], abs=0.08)
        assert result.recall[k].low < result.chance[k] < result.recall[k].high


def test_better_wrong_answers_have_more_gain():
    said = [[KINDS[0]], [KINDS[1]], [KINDS[4]]]
    axes = {text(code): vector for code, vector in zip([KINDS[0], KINDS[1], KINDS[4]], np.eye(3), strict=True)}

    def ndcg(first_image):
        images = np.array([first_image, axes[text(KINDS[1])], axes[text(KINDS[4])]])
        result = evaluate_retrieval(
            images, Statements(said, CODEBOOK, text), lambda texts: np.array([axes[t] for t in texts]), list("abc")
        )
        return result[0].ndcg.value

    other_side_first, other_finding_first = np.array([0.5, 0.8, 0.1]), np.array([0.5, 0.1, 0.8])
    assert ndcg(other_side_first) > ndcg(other_finding_first)


def test_nothing_to_retrieve():
    assert evaluate_retrieval(np.zeros((2, 4)), Statements([[], []], CODEBOOK, text), None, ["a", "b"]) == ()
