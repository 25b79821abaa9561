"""Calibrating a checkpoint to other studies: the weights stay, what is made of scores changes, tests are not seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.model.checkpoint import load_checkpoint
from medfilip.phantom.corpus import write_corpus
from medfilip.phantom.study import StudyOptions
from medfilip.storage.location import Location
from medfilip.storage.manifest import read_manifest
from medfilip.storage.shards import read_dataset
from tests.ray.conftest import Ran, run_job

STUDIES = 90


@pytest.fixture(scope="module")
def studies(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Settings that name a corpus most of which is validation data."""
    folder, root = tmp_path_factory.mktemp("phantoms"), tmp_path_factory.mktemp("runs")
    options = StudyOptions(
        size=96, categories=("pleural_effusion", "cardiomegaly", "edema"), prevalence=0.5, lateral=0.5
    )
    write_corpus(folder, STUDIES, seed=8, options=options)
    splits = ("split.train=0.0", "split.validation=0.7", "split.test=0.3")
    given = (f"reports={folder}", f"images={folder}/images", "keep_report_ids=true", "store_size=64", *splits)
    ingested = Ran.of(run_job("ingest", *given, f"root={root}"))
    extracted = Ran.of(run_job("extract", f"reports={ingested.location}", f"root={root}"))
    runs = (f"images={ingested.location}", f"findings={extracted.location}")
    return (*runs, f"phantom_truth={folder}", f"root={root}")


def test_what_is_fitted_is_stored_and_decides_in_evaluation(studies: tuple[str, ...], tiny_checkpoint: Path) -> None:
    calibrated = run_job("calibrate", f"checkpoint={tiny_checkpoint}", *studies, "rule=youden", "method=platt")
    before, after = load_checkpoint(tiny_checkpoint), load_checkpoint(Path(calibrated.location) / "checkpoint")
    assert after.fingerprint == before.fingerprint and after.metrics == before.metrics
    assert after.familiarity is not None and before.familiarity is None
    points = after.calibration.operating_points
    assert points and set(points) == set(after.calibration.categories) <= {"pleural_effusion", "cardiomegaly", "edema"}
    assert all(point.positives + point.negatives <= calibrated.manifest.counts["images"] for point in points.values())
    again = run_job("calibrate", f"checkpoint={tiny_checkpoint}", *studies, "rule=youden", "method=platt")
    assert again.already_finished

    evaluated = run_job("evaluate", f"checkpoint={calibrated.location}", *studies, "resamples=20", "parts=[]")
    numbers = json.loads((Path(evaluated.location) / "report.json").read_text())
    used = {item["label"]: item["threshold"] for item in numbers["diagnosis"]["zero_shot"]["labels"]}
    assert {label: used[label] for label in points} == {label: point.threshold for label, point in points.items()}


def test_strangers_are_counted_even_if_they_cannot_be_read(
    studies: tuple[str, ...], tiny_checkpoint: Path, tmp_path: Path, phantom_dicom: bytes
) -> None:
    (tmp_path / "one.dcm").write_bytes(phantom_dicom)
    (tmp_path / "broken.dcm").write_bytes(phantom_dicom[:900])
    with pytest.raises(MedfilipError) as caught:
        run_job("evaluate", f"checkpoint={tiny_checkpoint}", *studies, "parts=[]", f"unfamiliar={tmp_path}")
    assert caught.value.code is ErrorCode.CONFIG_INVALID and "calibrate" in str(caught.value.fix)
    calibrated = run_job("calibrate", f"checkpoint={tiny_checkpoint}", *studies)
    evaluated = run_job(
        "evaluate", f"checkpoint={calibrated.location}", *studies, "parts=[]", "resamples=20", f"unfamiliar={tmp_path}"
    )
    found = json.loads((Path(evaluated.location) / "report.json").read_text())["diagnosis"]["familiarity"]
    assert found["strangers"] == 1 and sum(found["refused"].values()) == 1
    assert found["test_images"] == evaluated.manifest.counts["test_images"]


def test_a_study_of_two_images_counts_once_where_studies_are_asked_for(
    studies: tuple[str, ...], tiny_checkpoint: Path
) -> None:
    ingest = Location.parse(next(item for item in studies if item.startswith("images=")).removeprefix("images="))
    listed = read_dataset(ingest, read_manifest(ingest), "images", ["study_id", "view", "split"]).to_pylist()
    test = [row for row in listed if row["split"] == "test"]
    found = {}
    for unit in ("image", "study"):
        given = (f"checkpoint={tiny_checkpoint}", *studies, "parts=[]", "resamples=20", f"unit={unit}")
        evaluated = run_job("evaluate", *given)
        found[unit] = json.loads((Path(evaluated.location) / "report.json").read_text())["diagnosis"]
        counted = evaluated.manifest.counts["test_studies" if unit == "study" else "test_images"]
        assert found[unit]["unit"] == unit and found[unit]["zero_shot"]["images"] == counted
    assert found["image"]["zero_shot"]["images"] == len(test)
    assert found["study"]["zero_shot"]["images"] == len({row["study_id"] for row in test}) < len(test)
    assert found["study"]["zero_shot"]["patients"] == found["image"]["zero_shot"]["patients"]


def test_too_few_studies_are_told(studies: tuple[str, ...], tiny_checkpoint: Path) -> None:
    with pytest.raises(MedfilipError) as caught:
        run_job("calibrate", f"checkpoint={tiny_checkpoint}", *studies, "labels=[mass]")
    assert caught.value.code is ErrorCode.NOT_ENOUGH_DATA and "validation images" in str(caught.value)
