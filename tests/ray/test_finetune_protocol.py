"""Fine-tuning on a public data set as it is shipped: splits, labels and masks of its protocol, on phantoms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.protocols.masks import read_masks
from medfilip.evaluation.protocols.protocol import load_protocol
from medfilip.evaluation.protocols.table import read_protocol
from medfilip.model.diagnoser import Diagnoser
from medfilip.phantom.layouts.corpus import write_layout
from medfilip.phantom.study import StudyOptions
from medfilip.storage.location import Location
from medfilip.transfer.masks import mask_to_model
from medfilip.transfer.saved import load
from pipelines.job import Outcome
from tests.ray.conftest import run_job

TINY = ("tune.steps=2", "tune.evaluate_every=2", "tune.global_batch=4", "tune.width=8", "resamples=20", "quiet=true")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("siim")
    write_layout(folder, "siim_acr", 50, 5, options=StudyOptions(size=64, prevalence=0.5))
    return folder


def finetune(data: Path, checkpoint: Path, root: Path, *settings: str) -> Outcome:
    given = ("protocol=siim_acr", f"data={data}", f"checkpoint={checkpoint}", f"root={root}", *TINY)
    return run_job("finetune", *given, *settings)


@pytest.fixture(scope="module")
def lock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lock") / "siim.json"


@pytest.fixture(scope="module")
def finetuned(ray_cluster: None, data: Path, root: Path, tiny_checkpoint: Path, lock: Path) -> Outcome:
    more = ("modes=[probe,segment]", "inits=checkpoint", "fractions=1", "min_images=1", f"lock={lock}")
    return finetune(data, tiny_checkpoint, root, "allow_partial=true", *more)


def numbers(outcome: Outcome, name: str = "transfer.json") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(outcome.location) / name).read_bytes())
    return found


def test_masks_are_trained_and_tested_on_in_the_splits_of_the_protocol(finetuned: Outcome, data: Path) -> None:
    table = read_protocol(load_protocol("siim_acr"), Location.parse(data), allow_partial=True)
    counts, result = finetuned.manifest.counts, numbers(finetuned)
    for split in ("train", "validation", "test"):
        assert counts[f"segment_{split}_images"] == counts[f"classify_{split}_images"] == len(table.rows(split)) > 0
    rows = {row["mode"]: row for row in result["rows"]}
    truth = table.truth_NL[table.rows("test"), 0]
    probed = rows["probe"]["labels"][0]
    assert (probed["positives"], probed["negatives"]) == ((truth == 1).sum(), (truth == 0).sum())
    assert probed["positives"] > 0 and probed["negatives"] > 0, "nothing empty to test on"
    for name in ("value", "dice_all"):
        assert 0 <= rows["segment"][name]["value"] <= 1
    assert result["synthetic"] and result["facts"]["completeness"].startswith("PARTIAL")
    assert not finetuned.manifest.rejected
    segmenter = load(Path(finetuned.location) / "segmenter")
    assert segmenter.mask(next(data.rglob("*.dcm"))).shape == (64, 64)


def test_dice_without_and_with_empty_masks_is_of_the_masks_that_were_drawn(
    data: Path, root: Path, tiny_checkpoint: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, np.ndarray] = {}
    from pipelines import finetune as job

    scored = job.score

    def keep(staging: Location, *given: Any, **more: Any) -> Any:
        for file in (staging / "scores").children():
            kept["counts"] = safetensors.numpy.load(file.read_bytes())["scores"]
        return scored(staging, *given, **more)

    monkeypatch.setattr(job, "score", keep)
    outcome = finetune(
        data, tiny_checkpoint, root, "allow_partial=true", "modes=segment", "inits=random", "fractions=1"
    )
    row = numbers(outcome)["rows"][0]
    table = read_protocol(load_protocol("siim_acr"), Location.parse(data), allow_partial=True)
    masks = read_masks(Location.parse(data))
    size = Diagnoser.load(tiny_checkpoint).image_size
    drawn = [mask_to_model(masks.mask(table.image_ids[at]), (64, 64), size) for at in table.rows("test")]
    size_N = np.array([mask.sum() for mask in drawn])
    np.testing.assert_array_equal(kept["counts"][:, 0, 2], size_N)
    cut = row["runs"][0]["cut"]
    at = round(cut["threshold"] * 10) - 1
    both_N, marked_N, _, all_N = kept["counts"][:, at].astype(float).T
    shown_N = marked_N >= cut["area"] * all_N
    total_N = marked_N * shown_N + size_N
    dice_N = np.where(total_N > 0, 2 * both_N * shown_N / np.maximum(total_N, 1), 1.0)
    assert row["value"]["value"] == pytest.approx(dice_N[size_N > 0].mean())
    assert row["dice_all"]["value"] == pytest.approx(dice_N.mean())
    assert 0 < (size_N == 0).sum() < len(size_N)


def test_a_finished_run_is_found_again_and_held_to_its_lock(
    finetuned: Outcome, data: Path, root: Path, tiny_checkpoint: Path, lock: Path, tmp_path: Path
) -> None:
    record = numbers(finetuned, "protocol.json")["record"]
    assert json.loads(lock.read_text())["split_fingerprint"] == record["split_fingerprint"]
    assert record["files"].keys() == {"train-rle.csv"} and len(record["files"]["train-rle.csv"]) == 64
    other = tmp_path / "other"
    write_layout(other, "siim_acr", 50, 6, options=StudyOptions(size=64, prevalence=0.5))
    for place, settings, code in (
        (data, ("modes=segment",), ErrorCode.DATA_INCOMPLETE),
        (data, ("modes=segment", "allow_partial=true", "expected_split=another"), ErrorCode.SPLIT_MISMATCH),
        (other, ("modes=segment", "allow_partial=true", f"lock={lock}"), ErrorCode.SPLIT_MISMATCH),
    ):
        with pytest.raises(MedfilipError) as caught:
            finetune(place, tiny_checkpoint, tmp_path, *settings)
        assert caught.value.code is code
    more = ("modes=[probe,segment]", "inits=checkpoint", "fractions=1", "min_images=1", f"lock={lock}")
    again = finetune(data, tiny_checkpoint, root, "allow_partial=true", *more)
    assert again.already_finished and again.location == finetuned.location


def test_masks_of_another_size_than_their_images_are_refused(
    data: Path, root: Path, tiny_checkpoint: Path, ray_cluster: None, tmp_path: Path
) -> None:
    import shutil

    copied = Path(shutil.copytree(data, tmp_path / "shrunk"))
    (copied / "phantom.json").unlink()  # then it claims to be the challenge, whose images have 1,024 pixels
    with pytest.raises(MedfilipError, match=r"No image of .* lies on it") as caught:
        finetune(copied, tiny_checkpoint, root, "allow_partial=true", "modes=segment", "inits=checkpoint")
    assert caught.value.code is ErrorCode.MASK_UNFIT
