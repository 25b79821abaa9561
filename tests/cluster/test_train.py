"""Training on Ray: several workers, one killed in mid-epoch, a driver killed, each to the weights of a quiet run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from medfilip.core.settings import load_settings
from medfilip.model.checkpoint import load_checkpoint
from medfilip.training.__main__ import main
from pipelines import ray_train
from pipelines.job import Outcome
from pipelines.pretrain import PretrainSettings, run
from tests.unit.training.events import numbers
from tests.unit.training.published import SMALL, publish_pairs

STEPS = 8
TRAIN = ("epochs=4", "report_steps=2", *SMALL)
KILLED_AFTER = 3  # in mid-epoch, one step after a checkpoint


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    pairs, images = publish_pairs(tmp_path_factory.mktemp("published"))
    return pairs, images


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Start a cluster with room for two workers and nothing else; return its address."""
    import ray

    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
    context = ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=100 << 20,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    yield context.address_info["address"]
    ray.shutdown()
    patch.undo()


def arguments(runs: tuple[Path, Path], root: Path, *more: str) -> list[str]:
    return [f"pairs={runs[0]}", f"images={runs[1]}", f"root={root}", *(f"train.{item}" for item in TRAIN), *more]


def pretrain(runs: tuple[Path, Path], root: Path, *more: str) -> Outcome:
    return run(load_settings(PretrainSettings, "pretrain", overrides=arguments(runs, root, *more)))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(folder).model.state_dict()


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=tolerance, msg=lambda text, n=name: f"{n}: {text}")


def losses(events: Path) -> dict[int, float]:
    return {step: value for (name, step), value in numbers(events).items() if name == "report/loss"}


@pytest.fixture(scope="module")
def alone(runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process without Ray."""
    folder = tmp_path_factory.mktemp("alone")
    assert main(["--pairs", str(runs[0]), "--images", str(runs[1]), "--out", str(folder), *TRAIN]) == 0
    return folder


@pytest.fixture(scope="module")
def two_workers(cluster: str, runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return pretrain(runs, tmp_path_factory.mktemp("two"), "workers=2", "validate_every=2")


def test_two_workers_train_and_validate_as_one_process_does(two_workers: Outcome, alone: Path) -> None:
    location, manifest = Path(two_workers.location), two_workers.manifest
    assert manifest.counts["training_workers"] == 2
    expected = losses(alone / "events")
    assert list(expected) == [2, 4, 6, 8]
    assert losses(location / "logs/train") == pytest.approx(expected, abs=1e-5)
    assert_equal(weights(location / "checkpoint"), weights(alone / "model"), 2e-4)
    validated, quiet = numbers(location / "logs/validation"), numbers(alone / "events")
    assert {step for _, step in validated} == {4, 8}
    assert validated == pytest.approx({key: quiet[key] for key in validated}, abs=1e-6)
    for name in ("zero_shot_pos_auroc", "zero_shot_pnc_auroc", "zero_shot_categories"):
        assert manifest.metrics[name] == pytest.approx(validated[f"validation/{name}", STEPS])
    assert not any("logs" in file.path for file in manifest.files)


def test_a_killed_worker_costs_the_steps_since_the_last_checkpoint(
    two_workers: Outcome, runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = tmp_path / "steps"
    taken.mkdir()

    def is_committed() -> bool:
        found = tmp_path.glob("runs/*/*/staging/train/*/checkpoint_manager_snapshot.json")
        return any(json.loads(file.read_bytes())["latest_checkpoint_result"] for file in found)

    def fragile(config: dict[str, Any]) -> dict[str, Any]:
        from medfilip.model.distributed import World
        from medfilip.training import loop
        from pipelines.ray_train import train_worker

        world, take = World.current(), loop.train_step

        def step(*given: Any, **options: Any) -> Any:
            result = take(*given, **options)
            if world.rank == 1:
                number = len(list(taken.iterdir()))
                (taken / f"{number:03d}").write_text(str(round(options["progress"] * STEPS)))
                if number + 1 == KILLED_AFTER:
                    # Ray Train looks for reports now and then; steps of real models are longer than that.
                    deadline = time.monotonic() + 20
                    while not is_committed() and time.monotonic() < deadline:
                        time.sleep(0.1)
                    os.kill(os.getpid(), signal.SIGKILL)
            return result

        loop.train_step = step
        return train_worker(config)

    monkeypatch.setattr(ray_train, "train_worker", fragile)
    # Room for three is never found: elastic training begins, and goes on, with the two there is room for.
    outcome = pretrain(runs, tmp_path / "runs", "workers=3", "min_workers=1", "validate_every=0")
    assert [int(file.read_text()) for file in sorted(taken.iterdir())] == [1, 2, 3, *range(3, STEPS + 1)]
    assert outcome.manifest.counts["training_workers"] == 2
    assert "zero_shot_categories" not in outcome.manifest.metrics
    undisturbed, found = Path(two_workers.location), Path(outcome.location)
    assert_equal(weights(found / "checkpoint"), weights(undisturbed / "checkpoint"), 1e-6)
    assert len(list((found / "logs/train").iterdir())) == 2, "the second start writes events of its own"
    assert losses(found / "logs/train") == pytest.approx(losses(undisturbed / "logs/train"), abs=1e-6)
    assert not (found / "staging").exists()


def test_a_killed_driver_that_starts_again_goes_on(
    cluster: str, runs: tuple[Path, Path], alone: Path, tmp_path: Path
) -> None:
    storage = tmp_path / "elsewhere"
    more = (f"storage={storage}", "train.epochs=40", "train.report_steps=20", "validate_every=0")
    given = arguments(runs, tmp_path, *more, f"ray.address={cluster}")
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "pretrain", *given],
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 100
    try:
        while time.monotonic() < deadline:
            kept = list(storage.glob("*/checkpoint_*/hashes.json"))
            # Steps reach the log a moment after the checkpoint may be there.
            if kept and list(tmp_path.glob("pretrain-*/*/logs/train/*")):
                break
            assert process.poll() is None, "the job ended before it could be killed"
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert kept, "no checkpoint to go on from"
    outcome = pretrain(runs, tmp_path, *more)
    events = sorted((Path(outcome.location) / "logs/train").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    assert len(events) == 2, "the first attempt's events and the second's"
    assert len(list(tmp_path.glob("pretrain-*/*/manifest.json"))) == 1, "no second run"
    assert not list(storage.iterdir()), "a finished run keeps no state"
    quiet = tmp_path / "quiet"
    given = [*TRAIN, "epochs=40", "report_steps=20"]
    assert (
        main(["--pairs", str(runs[0]), "--images", str(runs[1]), "--out", str(quiet), "--no-validation", *given]) == 0
    )
    assert_equal(weights(Path(outcome.location) / "checkpoint"), weights(quiet / "model"), 1e-6)
