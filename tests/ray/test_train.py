"""From findings to a measured checkpoint on Ray: pairs, two training workers, held-out evaluation."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.findings.codes import Codebook
from medfilip.findings.ontology import load_ontology
from medfilip.model.checkpoint import load_checkpoint
from medfilip.storage.location import Location
from medfilip.storage.shards import read_dataset
from tests.ray.conftest import STUDIES, Ran, run_job
from tests.unit.training.events import numbers


@pytest.fixture(scope="module")
def injected(extracted: Ran, ingested: Ran, root: Path) -> Ran:
    return Ran.of(run_job("inject", f"findings={extracted.location}", f"images={ingested.location}", f"root={root}"))


@pytest.fixture(scope="module")
def trained(injected: Ran, ingested: Ran, root: Path, s3_bucket: str) -> Ran:
    settings = (f"pairs={injected.location}", f"images={ingested.location}", "workers=2", "train.epochs=2")
    storage = f"storage={s3_bucket}/training"
    return Ran.of(run_job("pretrain", *settings, "train.global_batch=8", f"root={root}", storage, "quiet=true"))


def test_pairs_point_at_their_images_and_carry_their_findings(injected: Ran, ingested: Ran, extracted: Ran) -> None:
    pairs = read_dataset(injected.location, injected.manifest, "pairs").to_pylist()
    images = read_dataset(ingested.location, ingested.manifest, "images", ["image_id", "study_id"]).to_pylist()
    resolved = read_dataset(extracted.location, extracted.manifest, "resolved_findings").to_pylist()
    texts = set(read_dataset(injected.location, injected.manifest, "texts")["text_id"].to_pylist())
    names = Codebook.of(load_ontology()).categories
    assert [pair["image_id"] for pair in pairs] == [image["image_id"] for image in images]
    assert len(pairs) == STUDIES
    for pair in pairs:
        expected = sorted(row["category"] for row in resolved if row["study_id"] == pair["study_id"])
        assert sorted(names[code["category"]] for code in pair["findings"]) == expected
        assert all(set(code["text_ids"]) <= texts for code in pair["findings"])


def test_the_checkpoint_loads_and_says_what_it_was_trained_on(trained: Ran) -> None:
    checkpoint = load_checkpoint(Path(trained.location.path) / "checkpoint")
    assert checkpoint.versions.synthetic
    assert checkpoint.metrics["epoch"] == 2
    listed = {file.path for file in trained.manifest.files}
    assert listed >= {"checkpoint/model.safetensors", "checkpoint/hashes.json", "checkpoint/README.md"}
    assert not any("optim" in path for path in listed), "the optimiser's state is no part of a published model"
    assert 0 < trained.manifest.metrics["loss"] < 5


def test_checkpoints_lay_in_the_bucket_and_events_below_the_run(trained: Ran, s3_bucket: str) -> None:
    assert not Location.parse(f"{s3_bucket}/training").children(), "a finished run keeps no state"
    logs = Path(trained.location.path) / "logs"
    assert len([step for name, step in numbers(logs / "train") if name == "report/loss"]) == 2
    assert ("validation/zero_shot_categories", trained.manifest.metrics["step"]) in numbers(logs / "validation")
    assert trained.manifest.metrics["zero_shot_categories"] >= 0


def test_another_number_of_workers_is_the_same_run(trained: Ran, injected: Ran, ingested: Ran, root: Path) -> None:
    settings = (f"pairs={injected.location}", f"images={ingested.location}", "workers=1", "train.epochs=2")
    again = run_job("pretrain", *settings, "train.global_batch=8", f"root={root}")
    assert again.already_finished and again.location == str(trained.location)


def test_evaluation_counts_every_held_out_image_once(
    trained: Ran, ingested: Ran, extracted: Ran, corpus: Path, root: Path
) -> None:
    outcome = run_job(
        "evaluate",
        f"checkpoint={trained.location}",
        f"images={ingested.location}",
        f"findings={extracted.location}",
        f"phantom_truth={corpus}",
        "min_images=1",
        "resamples=50",
        f"root={root}",
    )
    assert outcome.manifest.counts["test_images"] == ingested.manifest.counts["images_test"]
    numbers = json.loads((Path(outcome.location) / "report.json").read_text())
    assert numbers["synthetic"]
    for label in numbers["diagnosis"]["zero_shot"]["labels"]:
        assert label["positives"] + label["negatives"] == outcome.manifest.counts["test_images"]
    assert len(numbers["diagnosis"]["robustness"]["styles"]) >= 8
    assert {item["direction"] for item in numbers["diagnosis"]["retrieval"]} >= {"image_to_report", "report_to_image"}
    assert numbers["diagnosis"]["grounding"]["rows"][0]["findings"] > 0
    assert numbers["extraction"]["reports"] == STUDIES
    page = (Path(outcome.location) / "report.html").read_text()
    assert "Synthetic data" in page and "<script" not in page
    assert page.count("data:image/png;base64,") > 0, "phantoms are shown with their maps"
    assert not re.search(r"(?:src|href)=[\"'](?!#|data:image/png;base64,)|url\((?![\"']?#)|@import", page), (
        "nothing is loaded from anywhere"
    )


def test_images_without_findings_are_no_training_data(extracted: Ran, corpus: Path, tmp_path: Path) -> None:
    other = run_job("ingest", f"images={corpus}/images", f"root={tmp_path}", "store_size=64")
    location = Ran.of(other).location
    with pytest.raises(MedfilipError) as caught:
        run_job("extract", f"reports={location}", f"root={tmp_path}")
    assert caught.value.code is ErrorCode.INPUT_NOT_FOUND and "'reports'" in str(caught.value)


def test_pairs_are_not_trained_on_other_peoples_images(injected: Ran, corpus: Path, tmp_path: Path) -> None:
    other = run_job("ingest", f"images={corpus}/images", f"root={tmp_path}", "store_size=64")
    with pytest.raises(MedfilipError) as caught:
        run_job(
            "pretrain", f"pairs={injected.location}", f"images={other.location}", "train.epochs=1", f"root={tmp_path}"
        )
    assert caught.value.code is ErrorCode.CONFIG_INVALID and "inject" in str(caught.value)


def test_unknown_labels_are_told_with_a_suggestion(trained: Ran, ingested: Ran, extracted: Ran, tmp_path: Path) -> None:
    with pytest.raises(MedfilipError) as caught:
        run_job(
            "evaluate", f"checkpoint={trained.location}", f"images={ingested.location}", "labels=[pnumothorax]",
            f"findings={extracted.location}", f"root={tmp_path}",
        )  # fmt: skip
    assert "'pneumothorax'" in str(caught.value)
