"""What a training run is placed on, and which settings are refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import load_settings
from medfilip.storage.location import Location
from pipelines import ray_train
from pipelines.pretrain import PretrainSettings, run
from pipelines.ray_group import Placement, placement
from pipelines.ray_train import TrainTask, train_worker
from tests.unit.training.published import publish_pairs

STORAGE = Location("file", "/storage")


def settings(*overrides: str) -> PretrainSettings:
    return load_settings(PretrainSettings, "pretrain", overrides=["pairs=/p", "images=/i", *overrides], environment={})


def placed(*overrides: str, **has: float) -> Placement:
    return placement(settings(*overrides), STORAGE, {"CPU": 8.0, **has})


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("workers=2", "min_workers=3"), "min_workers=3 is above workers=2"),
        (("workers=9", "train.global_batch=8"), "train.global_batch=8 cannot be split among workers=9"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(MedfilipError, match=told) as caught:
        settings(*overrides)
    assert caught.value.code is ErrorCode.CONFIG_INVALID


def test_how_many_processes_there_are() -> None:
    assert placed("workers=4").workers == 4
    assert placed("workers=4", "min_workers=2").workers == (2, 4)
    assert placed("workers=4", "min_workers=4").workers == 4


@pytest.mark.parametrize(
    ("overrides", "gpus", "expected"),
    [
        (("workers=2",), 0, (False, False, False)),
        (("workers=2",), 2, (True, False, True)),
        (("workers=2",), 3, (True, True, True)),
        (("workers=4", "min_workers=2"), 2, (True, False, True)),
        (("workers=4", "gpus=false"), 2, (False, False, True)),
        (("workers=4", "gpus=true"), 0, (True, False, False)),
    ],
)
def test_gpus_are_used_where_each_process_gets_one(
    overrides: tuple[str, ...], gpus: int, expected: tuple[bool, ...]
) -> None:
    found = placed(*overrides, GPU=gpus)
    assert (found.gpus, found.validation_gpu, found.hide_gpus) == expected


@pytest.mark.parametrize(
    ("overrides", "has", "told"),
    [
        (("workers=4",), {"GPU": 2}, "workers=4 is above the cluster's 2 GPUs"),
        (("workers=9", "min_workers=3"), {"GPU": 2}, "min_workers=3 is above"),
        (("workers=9",), {}, "9 processes do not fit the 8 logical CPUs"),
    ],
)
def test_a_cluster_that_can_never_hold_the_processes_is_told(
    overrides: tuple[str, ...], has: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(MedfilipError, match=told) as caught:
        placed(*overrides, **has)
    assert caught.value.code is ErrorCode.CONFIG_INVALID


def test_a_cluster_that_may_grow_is_waited_for() -> None:
    assert placed("workers=9", "ray.address=ray:6379").workers == 9


def test_where_and_how_it_runs_does_not_name_the_run() -> None:
    plain = settings()
    for override in ("workers=4", "storage=s3://b/p", "validate_every=0", "mlflow.tracking_uri=http://m", "gpus=true"):
        assert settings(override).semantic() == plain.semantic()
    assert settings("train.report_steps=5").train.semantic() == plain.train.semantic()
    assert settings("train.epochs=5").semantic() != plain.semantic()


def task(**changes: Any) -> dict[str, Any]:
    told = settings()
    places = {"run": "r", "pairs": "/p", "images": "/i", "logs": "/l", "progress": "/progress.json"}
    values = {**places, "train": told.train, "synthetic": True, "validate_every": 1, "mlflow": told.mlflow, **changes}
    return TrainTask.model_validate(values).model_dump(mode="json")


@pytest.mark.parametrize("code", [ErrorCode.CONFIG_INVALID, ErrorCode.SHARD_CORRUPT])
def test_only_what_every_worker_runs_into_is_not_tried_again(code: ErrorCode, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_given: object, **_options: object) -> None:
        raise MedfilipError(code, "What is wrong.", fix="What to do.")

    monkeypatch.setattr(ray_train, "load_pairs", broken)
    monkeypatch.setattr(ray_train, "take_device", lambda: None)
    if code is ErrorCode.CONFIG_INVALID:
        assert train_worker(task()) == {"code": code, "message": "What is wrong.", "fix": "What to do."}
    else:
        with pytest.raises(MedfilipError):
            train_worker(task())


def test_a_run_that_is_to_log_to_mlflow_needs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pairs, images = publish_pairs(tmp_path)
    monkeypatch.setattr("medfilip.training.logs.find_spec", lambda name: None)
    chosen = settings(f"pairs={pairs}", f"images={images}", f"root={tmp_path}", "mlflow.tracking_uri=http://m")
    with pytest.raises(MedfilipError) as caught:
        run(chosen)
    assert caught.value.code is ErrorCode.DEPENDENCY_MISSING
    with pytest.raises(MedfilipError, match="'pneumothorax'"):
        run(settings(f"pairs={pairs}", f"images={images}", f"root={tmp_path}", "train.unseen=[pnumothorax]"))
