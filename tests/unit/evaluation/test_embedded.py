"""An image or a study is what counts once: the images of a study are one row, pooled as in training."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from medfilip.evaluation.diagnosis import evaluate_diagnosis
from medfilip.evaluation.embedded import EmbeddedImages, Options
from medfilip.evaluation.truth import Shown, Truth
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.model.diagnoser import Diagnoser

LABELS = ("pleural_effusion", "nodule")


@pytest.fixture(scope="module")
def diagnoser(tiny_checkpoint):
    return Diagnoser.load(tiny_checkpoint)


def facts(studies, views, patients=None):
    count = len(studies)
    return pa.table(
        {
            "image_id": [f"i{at}" for at in range(count)], "study_id": studies,
            "patient_id": patients or [f"p-{study}" for study in studies],
            "view": views, "view_position": pa.array([None] * count, pa.string()),
            "sex": pa.array([None] * count, pa.string()), "age_years": pa.array([None] * count, pa.int16()),
            "source": pa.array([None] * count, pa.string()), "split": ["test"] * count,
        }
    )  # fmt: skip


def pixels(count):
    return np.random.default_rng(5).normal(size=(count, 1, 32, 32)).astype(np.float32)


def test_the_images_of_a_study_are_pooled_wherever_they_lie(diagnoser):
    table = facts(["b", "a", "b", "c", "a"], ["lateral", "frontal", "frontal", "lateral", "unknown"])
    pixels_N1SS = pixels(5)
    found = EmbeddedImages.of(diagnoser.image_features(pixels_N1SS), table, diagnoser, "study")
    assert found.column("study_id") == ["b", "a", "c"]
    assert found.column("image_id") == ["i2", "i1", "i3"] and found.column("view") == ["frontal", "frontal", "lateral"]
    expected_SD = diagnoser.encode_images(pixels_N1SS[[0, 2, 1, 4, 3]], np.array([0, 0, 1, 1, 2]))
    np.testing.assert_allclose(found.image_ND, expected_SD, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found.image_ND, axis=1), 1, atol=1e-6)
    assert len(found) == 3 and found.of_split("test").unit == "study" and len(found.of_split("train")) == 0


@pytest.mark.parametrize("unit", ["image", "study"])
def test_a_study_with_two_images_counts_as_often_as_the_unit_says(diagnoser, unit):
    studies = [f"s{at // 2}" for at in range(40)]
    table = facts(studies, ["frontal", "lateral"] * 20, [f"p{at // 4}" for at in range(40)])
    shown = {f"s{at}": {label: Shown(at % 3 == turn) for turn, label in enumerate(LABELS)} for at in range(20)}
    truth = Truth(load_ontology(), {}, shown)
    images = EmbeddedImages.of(diagnoser.image_features(pixels(40)), table, diagnoser, unit)
    options = Options(labels=LABELS, resamples=10, parts=())
    found = evaluate_diagnosis(diagnoser, images, truth, load_knowledge(), options)
    assert found.unit == unit and found.zero_shot.patients == 10
    assert found.zero_shot.images == (20 if unit == "study" else 40)
    assert found.zero_shot.labels[0].positives == (7 if unit == "study" else 14)


def test_both_units_agree_where_every_study_has_one_image(diagnoser):
    table = facts([f"s{at}" for at in range(30)], ["frontal"] * 30, [f"p{at // 2}" for at in range(30)])
    shown = {f"s{at}": {label: Shown((at + turn) % 3 == 0) for turn, label in enumerate(LABELS)} for at in range(30)}
    truth, feature_ND = Truth(load_ontology(), {}, shown), diagnoser.image_features(pixels(30))
    options = Options(labels=LABELS, resamples=50, parts=("prompts", "subgroups"))
    by_image, by_study = (
        evaluate_diagnosis(
            diagnoser, EmbeddedImages.of(feature_ND, table, diagnoser, unit), truth, load_knowledge(), options
        )
        for unit in ("image", "study")
    )
    assert by_study.model_dump(exclude={"unit"}) == by_image.model_dump(exclude={"unit"})
