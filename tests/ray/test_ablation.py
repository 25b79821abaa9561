"""An ablation of a few steps: every arm is trained once, compared, and not trained again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.job import JOBS
from tests.ray.conftest import Ran, run_job


@pytest.fixture
def two_arms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the arms: training ten models would test nothing more."""
    from medfilip.evaluation.ablation import Arm

    module = JOBS["ablation"].load()
    monkeypatch.setattr(module, "arms", lambda which: (Arm(), Arm(attributes="sentences", objective="infonce")))


def test_arms_are_trained_compared_and_found_again(
    two_arms: None, ingested: Ran, extracted: Ran, corpus: Path, root: Path
) -> None:
    given = (
        f"images={ingested.location}", f"findings={extracted.location}", f"phantom_truth={corpus}", f"root={root}",
        "train.epochs=1", "train.text_warmup=5", "min_images=1", "resamples=20", "quiet=true",
    )  # fmt: skip
    outcome = run_job("ablation", *given)
    found = json.loads((Path(outcome.location) / "ablation.json").read_text())
    assert [arm["arm"] for arm in found["arms"]] == ["default", "attributes sentences, objective infonce"]
    assert found["images"] == ingested.manifest.counts["images_test"] and found["labels"]
    assert found["arms"][1]["difference"] and len({arm["checkpoints"][0] for arm in found["arms"]}) == 2
    assert run_job("ablation", *given).already_finished
    again = run_job("ablation", *given[:-2], "resamples=21", "quiet=true")  # other intervals, the same models
    assert not again.already_finished
    numbers = json.loads((Path(again.location) / "ablation.json").read_text())
    assert [arm["checkpoints"] for arm in numbers["arms"]] == [arm["checkpoints"] for arm in found["arms"]]
