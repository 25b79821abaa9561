"""All parts of an evaluation on one corpus: what the truth cannot support is told, thresholds say who chose them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from medfilip.evaluation.diagnosis import evaluate_diagnosis
from medfilip.evaluation.embedded import EmbeddedImages, Options
from medfilip.evaluation.truth import COLUMNS, Shown, Truth
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.model.calibration import Calibration, OperatingPoint
from medfilip.model.diagnoser import Diagnoser

LABELS = ("pleural_effusion", "nodule", "mass")


def corpus(dimension: int, images: int = 60) -> tuple[EmbeddedImages, Truth]:
    rng = np.random.default_rng(3)
    image_ND = rng.normal(size=(images, dimension)).astype(np.float32)
    image_ND /= np.linalg.norm(image_ND, axis=1, keepdims=True)
    names = [f"i{at}" for at in range(images)]
    facts = {
        "image_id": names, "study_id": names, "patient_id": [f"p{at // 2}" for at in range(images)],
        "view": ["frontal"] * images, "view_position": ["PA"] * images, "sex": ["F", "M"] * (images // 2),
        "age_years": pa.array([50] * images, pa.int16()), "source": pa.array([None] * images, pa.string()),
        "split": ["validation"] * 20 + ["test"] * (images - 20),
    }  # fmt: skip
    shown = {name: {label: Shown(bool(rng.random() < 0.5)) for label in LABELS} for name in names}
    stated = {
        name: [
            dict.fromkeys(COLUMNS) | {"category": label, "certainty": "present"}
            for label in LABELS
            if shown[name][label].present
        ]
        for name in names
    }
    table = pa.table(
        {name: pa.array(values, pa.string()) if name == "source" else values for name, values in facts.items()}
    )
    return EmbeddedImages(image_ND, table), Truth(load_ontology(), stated, shown)


@pytest.fixture(scope="module")
def diagnoser(tiny_checkpoint):
    return Diagnoser.load(tiny_checkpoint)


def evaluate(diagnoser, truth=None, **options):
    images, known = corpus(diagnoser.model.config.embed_dim)
    return evaluate_diagnosis(
        diagnoser, images, truth or known, load_knowledge(), Options(labels=LABELS, resamples=10, **options)
    )


def test_what_the_truth_lacks_is_not_measured_and_says_why(diagnoser):
    _, known = corpus(diagnoser.model.config.embed_dim)
    found = evaluate(diagnoser, replace(known, lacks={"retrieval": "there are no reports"}))
    assert found.not_measured["retrieval"] == "there are no reports" and found.retrieval == ()
    assert "side" in found.not_measured["fine_grained"], "nothing is known of the details: it came out empty"
    assert found.robustness is not None and [item.column for item in found.subgroups] == ["sex"]
    assert set(found.not_measured) == {"retrieval", "fine_grained"}


def test_parts_that_were_not_asked_for_are_not_told(diagnoser):
    _, known = corpus(diagnoser.model.config.embed_dim)
    truth = replace(known, lacks={"retrieval": "there are no reports"})
    assert evaluate(diagnoser, truth, parts=("subgroups",)).not_measured == {}
    assert {item.direction for item in evaluate(diagnoser).retrieval} >= {"image_to_statement", "image_to_report"}


def test_a_threshold_says_who_chose_it(tiny_checkpoint):
    loaded = Diagnoser.load(tiny_checkpoint)
    point = OperatingPoint(threshold=0.25, rule="f1", sensitivity=0.5, specificity=0.5, positives=9, negatives=9)
    calibration = Calibration(operating_points={"nodule": point})
    diagnoser = Diagnoser(loaded.model, versions=loaded.versions, model_fingerprint="m", calibration=calibration)
    images, known = corpus(diagnoser.model.config.embed_dim)
    shown = {
        name: {label: one for label, one in labels.items() if label != "mass" or int(name[1:]) >= 20}
        for name, labels in known.shown.items()
    }
    truth = replace(known, shown=shown)  # of the validation split nothing is known about masses
    options = Options(labels=LABELS, resamples=10, parts=())
    found = {
        item.label: item
        for item in evaluate_diagnosis(diagnoser, images, truth, load_knowledge(), options).zero_shot.labels
    }
    assert (found["nodule"].threshold, found["nodule"].threshold_from) == (0.25, "checkpoint")
    assert found["pleural_effusion"].threshold_from == "validation"
    assert (found["mass"].threshold, found["mass"].threshold_from) == (0.5, "default")
