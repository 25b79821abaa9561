"""The checkpoint of the package: it fits this version, is small, says what it is, and knows phantoms from patients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import medfilip
from medfilip.answers import SYNTHETIC
from medfilip.core.errors import MedfilipError
from medfilip.evaluation.metrics import auroc
from medfilip.model.locate import DEFAULT_CHECKPOINT
from medfilip.model.zero_shot import ZeroShotModel
from medfilip.phantom.corpus import dicom_bytes
from medfilip.phantom.study import DEMONSTRATED, StudyOptions, make_study

STUDIES = 40
LARGE = ("pleural_effusion", "cardiomegaly", "edema", "hyperinflation")


@pytest.fixture(scope="module")
def model() -> ZeroShotModel:
    return medfilip.load()


def test_it_is_small_and_says_what_it_is(model: ZeroShotModel) -> None:
    assert sum(file.stat().st_size for file in DEFAULT_CHECKPOINT.iterdir()) < 30e6
    assert model.training_data == SYNTHETIC and set(model.diagnoser.calibration.categories) == set(DEMONSTRATED)
    assert model.diagnoser.familiarity is not None and model.diagnoser.slots


def test_it_tells_what_is_drawn_and_is_at_home_there(model: ZeroShotModel) -> None:
    options = StudyOptions(size=256, categories=DEMONSTRATED, prevalence=0.4)
    studies = [make_study(31_337, index, options=options) for index in range(STUDIES)]
    found = model.diagnose([dicom_bytes(study) for study in studies], LARGE)
    assert np.mean([bool(answer.abstentions) for answer in found]) <= 0.1
    for name in LARGE:
        truth = np.array([int(study.study_truth[name].status == "present") for study in studies])
        assert auroc(truth, np.array([answer[name].positive_score for answer in found])) > 0.85, name


def test_it_tells_mild_from_severe_and_left_from_right(model: ZeroShotModel) -> None:
    options = StudyOptions(size=256, categories=DEMONSTRATED, prevalence=0.4)
    studies = [make_study(31_337, index, options=options) for index in range(STUDIES)]
    for words, name, slot in (
        (("mild", "severe"), "edema", "severity"),
        (("mild", "severe"), "cardiomegaly", "severity"),
        (("left", "right"), "pleural_effusion", "laterality"),
    ):
        shown = [study for study in studies if getattr(study.study_truth[name], slot) in words]
        labels = [f"{word} {name.replace('_', ' ')}" for word in words]
        answers = model.diagnose([dicom_bytes(study) for study in shown], labels)
        second = np.array([int(getattr(study.study_truth[name], slot) == words[1]) for study in shown])
        assert 0 < second.sum() < len(second), "both are drawn"
        leaning = [answer[labels[1]].positive_score - answer[labels[0]].positive_score for answer in answers]
        assert auroc(second, np.array(leaning)) > 0.8, (name, words)


@pytest.mark.data
def test_it_decides_nothing_about_patients(model: ZeroShotModel, data_folder: Path) -> None:
    files = sorted((data_folder / "cxr_images" / "open").rglob("*.png"))[::40][:25]
    answers = []
    for file in files:
        try:
            answers.append(model.diagnose(file, ["pneumothorax"]))
        except MedfilipError:
            continue  # a file that cannot be read gets no answer at all
    assert len(answers) > 10
    assert np.mean([bool(answer.abstentions) for answer in answers]) > 0.9
    assert all(answer[0].decision == "abstained" for answer in answers if answer.abstentions)
