"""A checkpoint, fine-tuned on Ray in every mode, to numbers with intervals and models that load."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.phantom.corpus import write_corpus
from medfilip.phantom.study import StudyOptions
from medfilip.transfer.saved import load
from medfilip.transfer.towers import stored_tower_hash
from pipelines.job import Outcome
from tests.ray.conftest import Ran, run_job
from tests.support.hub_models import save_vision

LABELS = "labels=[pneumothorax,cardiomegaly]"
TINY = ("tune.steps=4", "tune.evaluate_every=2", "tune.global_batch=4", "tune.width=8", "resamples=20", "quiet=true")


@pytest.fixture(scope="module", autouse=True)
def attentive() -> Iterator[None]:
    """Let Ray Train ask for reports often: these cells take less time than it usually waits between two of them."""
    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")
    yield
    patch.undo()


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    options = StudyOptions(size=64, categories=("pneumothorax", "cardiomegaly"), prevalence=0.5)
    write_corpus(folder, 60, 9, options=options, masks=True)
    return folder


@pytest.fixture(scope="module")
def images(ray_cluster: None, drawn: Path, root: Path) -> Ran:
    more = ("keep_report_ids=true", "split.train=0.5", "split.validation=0.25", "split.test=0.25", f"root={root}")
    return Ran.of(run_job("ingest", f"reports={drawn}", f"images={drawn}/images", *more))


@pytest.fixture(scope="module")
def finetuned(
    images: Ran, drawn: Path, root: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Outcome:
    weights = save_vision("resnet", tmp_path_factory.mktemp("hub"))
    return run_job(
        "finetune", f"checkpoint={tiny_checkpoint}", f"images={images.location}", f"phantom_truth={drawn}", LABELS,
        "modes=[probe,full,segment]", "fractions=[0.2,1]", f"init_from={weights}", *TINY, "workers=2",
        f"root={root}",
    )  # fmt: skip


def numbers(outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(outcome.location) / "transfer.json").read_bytes())
    return found


def test_every_cell_of_the_grid_is_measured(finetuned: Outcome) -> None:
    result = numbers(finetuned)
    found = {(row["mode"], row["init"], row["fraction"]) for row in result["rows"]}
    assert len(found) == len(result["rows"]) == 3 * 3 * 2 and not result["absent"]
    for row in result["rows"]:
        assert [run["seed"] for run in row["runs"]] == [0]
        assert 0 <= row["value"]["value"] <= 1 and row["value"]["low"] <= row["value"]["high"]
        assert (row["dice_all"] is not None) == (row["mode"] == "segment")
        assert (row["over_random"] is None) == (row["init"] == "random")
        if row["mode"] != "segment":
            assert [label["label"] for label in row["labels"]] == ["pneumothorax", "cardiomegaly"]
            tested = {label["positives"] + label["negatives"] for label in row["labels"]}
            assert tested == {finetuned.manifest.counts["classify_test_images"]}
    assert result["synthetic"] and not (Path(finetuned.location) / "staging").exists()


def test_the_checkpoint_is_proved_to_be_what_was_trained(finetuned: Outcome, tiny_checkpoint: Path) -> None:
    result = numbers(finetuned)
    assert result["tower_in_file"] == stored_tower_hash(tiny_checkpoint)
    for row in result["rows"]:
        for run in row["runs"]:
            assert (run["weights"] == result["tower_in_file"]) == (row["init"] == "checkpoint")


def test_shares_hold_fewer_patients_and_all_steps_are_equal(finetuned: Outcome) -> None:
    for row in numbers(finetuned)["rows"]:
        for run in row["runs"]:
            assert run["images"] >= run["patients"] > 0
            assert run.get("steps", 4) == 4
    by_fraction = {row["fraction"]: row["runs"][0]["patients"] for row in numbers(finetuned)["rows"]}
    assert by_fraction[0.2] < by_fraction[1.0]


def test_the_best_models_load_and_answer(finetuned: Outcome, drawn: Path) -> None:
    image = next((drawn / "images").glob("*.dcm"))
    classifier, segmenter = (load(Path(finetuned.location) / name) for name in ("model", "segmenter"))
    assert set(classifier.probabilities(image)) == {"pneumothorax", "cardiomegaly"}
    assert segmenter.mask(image).shape == (64, 64) and segmenter.mask(image).dtype == np.bool_
    listed = {file.path for file in finetuned.manifest.files}
    assert listed >= {"transfer.json", "model/model.safetensors", "segmenter/hashes.json"}
    runs = [run for row in numbers(finetuned)["rows"] if row["mode"] == "full" for run in row["runs"]]
    kept = json.loads((Path(finetuned.location) / "model/metrics.json").read_bytes())
    assert kept["validation"] == max(run["validation"] for run in runs)


def test_another_number_of_workers_is_the_same_run(
    finetuned: Outcome, images: Ran, drawn: Path, root: Path, tiny_checkpoint: Path
) -> None:
    given = (f"checkpoint={tiny_checkpoint}", f"images={images.location}", f"phantom_truth={drawn}", LABELS)
    more = ("modes=full", "fractions=1", "inits=checkpoint", *TINY, f"root={root}")
    first = run_job("finetune", *given, *more)
    again = run_job("finetune", *given, *more, "workers=2")
    assert again.already_finished and again.location == first.location
    alone = numbers(first)["rows"][0]
    together = {(row["mode"], row["init"], row["fraction"]): row for row in numbers(finetuned)["rows"]}
    expected = together["full", "checkpoint", 1.0]["runs"][0]["validation"]
    assert alone["runs"][0]["validation"] == pytest.approx(expected, abs=1e-4), "two processes trained as one does"


def test_an_initialisation_without_weights_is_left_out_and_said_so(
    images: Ran, drawn: Path, root: Path, tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines.finetune import show

    outcome = run_job(
        "finetune", f"checkpoint={tiny_checkpoint}", f"images={images.location}", f"phantom_truth={drawn}", LABELS,
        "modes=probe", "fractions=1", "seeds=[0,1]", *TINY, f"root={root}",
    )  # fmt: skip
    result = numbers(outcome)
    assert [run["seed"] for run in result["rows"][0]["runs"]] == [0, 1]
    assert {row["init"] for row in result["rows"]} == {"checkpoint", "random"}
    assert [one["init"] for one in result["absent"]] == ["imagenet"]
    show(outcome)
    printed = capsys.readouterr().out
    assert "imagenet not measured" in printed and max(len(line) for line in printed.splitlines()) <= 100


def test_labels_that_reports_state(extracted: Ran, ingested: Ran, root: Path, tiny_checkpoint: Path) -> None:
    given = (f"checkpoint={tiny_checkpoint}", f"images={ingested.location}", f"findings={extracted.location}")
    with pytest.raises(MedfilipError, match="No category has 500 images") as caught:
        run_job("finetune", *given, "modes=probe", "min_images=500", *TINY, f"root={root}")
    assert caught.value.code is ErrorCode.NOT_ENOUGH_DATA
    outcome = run_job("finetune", *given, "modes=probe", "min_images=1", "fractions=1", *TINY, f"root={root}")
    labels = numbers(outcome)["rows"][0]["labels"]
    assert labels and any(label["unknown"] for label in labels), "what reports are silent about is unknown"


@pytest.mark.parametrize("mode", ["probe", "segment"])
def test_truth_of_another_corpus_is_refused(
    mode: str, images: Ran, root: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    write_corpus(tmp_path, 60, 77, options=StudyOptions(size=64), masks=True)  # whose reports have the same ids
    with pytest.raises(MedfilipError, match="are not those of 'phantom_truth'") as caught:
        run_job(
            "finetune", f"checkpoint={tiny_checkpoint}", f"images={images.location}", f"phantom_truth={tmp_path}",
            f"modes={mode}", *TINY, f"root={root}",
        )  # fmt: skip
    assert caught.value.code is ErrorCode.NOT_ENOUGH_DATA
