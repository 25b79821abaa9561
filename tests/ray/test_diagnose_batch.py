"""A batch of studies on Ray: the library's and the endpoint's numbers, every file once, refusals with reasons."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

import medfilip
from medfilip.answers import DiagnosedFinding
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.ids import pseudonym
from medfilip.core.secrets import project_key
from medfilip.model.zero_shot import ImageDiagnosis
from medfilip.phantom.corpus import write_corpus
from medfilip.phantom.study import StudyOptions, make_study
from medfilip.storage.shards import read_dataset
from serve.local import Endpoint
from tests.ray.conftest import Ran, run_job
from tests.support.command import medfilip_here

pytestmark = pytest.mark.timeout(600)  # each job starts processes that import torch, twice
LABELS = ("pleural_effusion", "nodule", "small left pleural effusion")
DESCRIBED = "air crescent sign: crescent of air around a mass; thin dark rim"
ASKED = (
    f"labels={json.dumps(LABELS)}",
    f"described={json.dumps([DESCRIBED])}",
    "threshold=0.4",
    "attributes=2",
    "studies_per_shard=3",
    "keep_paths=true",
    "quiet=true",
)


@dataclass(frozen=True)
class Batch:
    """A folder of studies of every kind, what was made of it, and what the library says of each study."""

    folder: Path
    ran: Ran
    studies: dict[tuple[str, ...], ImageDiagnosis]

    def rows(self, dataset: str) -> list[dict]:
        return read_dataset(self.ran.location, self.ran.manifest, dataset).to_pylist()


def write_folder(folder: Path) -> None:
    write_corpus(folder / "corpus", 6, seed=3, options=StudyOptions(lateral=1.0))
    shutil.move(folder / "corpus" / "images", folder / "images")
    images = folder / "images"
    grey = (make_study(7, 1, size=300).image >> 4).astype(np.uint8)
    Image.fromarray(grey).save(images / "plain.png")
    noise = np.random.default_rng(0).integers(0, 255, (300, 300), np.uint8)
    Image.fromarray(noise).save(images / "noise.png")
    (images / "broken.dcm").write_bytes(min(images.glob("*.dcm")).read_bytes()[:3000])
    (images / "words.jpg").write_bytes(b"no picture")
    (images / "again.dcm").write_bytes(max(images.glob("*-lateral.dcm")).read_bytes())
    (images / "list.csv").write_text("no image")


def grouped(images: Path) -> list[tuple[str, ...]]:
    """Files by study, as their headers have it."""
    studies: dict[str, list[str]] = {}
    for file in sorted(images.iterdir(), key=lambda file: file.name):
        if file.name in ("again.dcm", "broken.dcm", "words.jpg", "list.csv"):
            continue
        name = str(pydicom.dcmread(file).StudyInstanceUID) if file.suffix == ".dcm" else file.name
        studies.setdefault(name, []).append(file.name)
    return [tuple(names) for names in studies.values()]


@pytest.fixture(scope="module")
def batch(ray_cluster: None, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Batch:
    folder = tmp_path_factory.mktemp("batch")
    write_folder(folder)
    images = folder / "images"
    settings = (f"images={images}", f"checkpoint={tiny_checkpoint}", f"root={folder}/runs")
    ran = Ran.of(run_job("diagnose_batch", *settings, *ASKED))
    studies = grouped(images)
    name, _, phrases = DESCRIBED.partition(": ")
    answers = medfilip.load(tiny_checkpoint).diagnose(
        [[images / name for name in names] for names in studies],
        LABELS,
        described={name: phrases.split("; ")},
        threshold=0.4,
        attributes=2,
    )
    return Batch(images, ran, dict(zip(studies, answers, strict=True)))


def paths_of(batch: Batch) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[tuple[int, str]]] = {}
    for row in batch.rows("diagnosed_images"):
        found.setdefault(row["study_id"], []).append((row["position"], row["path"]))
    return {study: tuple(path for _, path in sorted(images)) for study, images in found.items()}


def assert_equal(row: dict, finding: DiagnosedFinding) -> None:
    told = finding.model_dump(exclude={"heat_map"})
    for name, value in told.items():
        if name == "attributes":
            # Phrases that a small model scores alike may come in another order.
            assert [item["score"] for item in row[name]] == pytest.approx([item["score"] for item in value], abs=1e-5)
        elif isinstance(value, dict | float):
            assert row[name] == pytest.approx(value, abs=1e-5), name
        else:
            assert row[name] == value, name


def test_the_numbers_are_those_of_the_library(batch: Batch) -> None:
    paths = paths_of(batch)
    assert set(paths.values()) == set(batch.studies) and len(paths) == len(batch.studies) == 8
    rows = batch.rows("diagnoses")
    assert len(rows) == len({(row["study_id"], row["label"]) for row in rows}) == 8 * 4
    for row in rows:
        answer = batch.studies[paths[row["study_id"]]]
        assert_equal(row, answer[row["label"]])
        assert row["abstentions"] == list(answer.abstentions) and row["unfamiliarity"] == answer.unfamiliarity
        assert row["views"] == [image.view for image in answer.images] and row["images"] == len(answer.images)
        assert row["quality"] == list(answer.quality)
    views = {view for row in rows for view in row["views"]}
    assert {"frontal", "lateral"} <= views
    assert {"present", "absent", "abstained"} <= {row["decision"] for row in rows}


def test_every_file_is_answered_or_refused_once(batch: Batch) -> None:
    manifest = batch.ran.manifest
    assert manifest.rejected == {
        ErrorCode.IMAGE_DUPLICATE: 1,
        ErrorCode.IMAGE_UNDECODABLE: 1,
        ErrorCode.IMAGE_UNSUPPORTED: 1,
    }
    answered = [row["path"] for row in batch.rows("diagnosed_images")]
    refused = [row["id"] for row in batch.rows("rejected")]
    files = {file.name for file in batch.folder.iterdir()} - {"list.csv"}
    assert sorted(answered + refused) == sorted(files), "nothing lost, nothing twice"
    assert manifest.counts["images_listed"] == len(files) and manifest.counts["files_of_other_kinds"] == 1
    assert manifest.counts["studies"] == 8 and manifest.counts["studies_not_chest"] == 1
    assert manifest.datasets["diagnoses"].rows == sum(
        manifest.counts[name] for name in ("present", "absent", "abstained")
    )
    assert len(manifest.datasets["diagnoses"].shards) == 3


def test_what_is_no_chest_is_answered_and_nothing_is_decided(batch: Batch) -> None:
    [study] = [study for study, paths in paths_of(batch).items() if paths == ("noise.png",)]
    rows = [row for row in batch.rows("diagnoses") if row["study_id"] == study]
    assert {row["abstention"] for row in rows} == {"study"} and rows[0]["abstentions"] == ["not_chest"]


def test_ids_are_those_of_ingest_and_pixels_may_come_from_it(
    batch: Batch, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    settings = (f"root={tmp_path}", "checks.not_chest=accept", "quiet=true")
    ingested = Ran.of(run_job("ingest", f"images={batch.folder}", *settings))
    asked = (f"checkpoint={tiny_checkpoint}", f"root={tmp_path}", *ASKED)
    outcome = run_job("diagnose_batch", f"images={ingested.location}", *asked)
    ran = Ran.of(outcome)
    found = {
        (row["study_id"], row["label"]): row
        for row in read_dataset(ran.location, ran.manifest, "diagnoses").to_pylist()
    }
    expected = {(row["study_id"], row["label"]): row for row in batch.rows("diagnoses")}
    assert found.keys() == expected.keys()
    for key, row in expected.items():
        assert found[key]["probability"] == pytest.approx(row["probability"], abs=1e-5)
        assert (found[key]["decision"], found[key]["images"]) == (row["decision"], row["images"])
    assert not ran.manifest.rejected
    assert run_job("diagnose_batch", f"images={ingested.location}", *asked).already_finished


def test_a_bucket_gives_the_same_and_no_identifier(
    batch: Batch, tiny_checkpoint: Path, s3_bucket: str, tmp_path: Path
) -> None:
    import boto3

    prefix = uuid.uuid4().hex
    client = boto3.client("s3")
    for file in batch.folder.iterdir():
        client.upload_file(str(file), s3_bucket.removeprefix("s3://"), f"{prefix}/{file.name}")
    asked = [item for item in ASKED if not item.startswith("keep_paths")]
    place = f"{s3_bucket}/{prefix}"
    ran = Ran.of(
        run_job("diagnose_batch", f"images={place}", f"checkpoint={tiny_checkpoint}", f"root={place}-runs", *asked)
    )
    rows = read_dataset(ran.location, ran.manifest, "diagnoses")
    assert rows.num_rows == 8 * 4 and ran.manifest.rejected == batch.ran.manifest.rejected
    by_id = {(row["study_id"], row["label"]): row["probability"] for row in batch.rows("diagnoses")}
    for row in rows.select(["study_id", "label", "probability"]).to_pylist():
        assert row["probability"] == pytest.approx(by_id[row["study_id"], row["label"]], abs=1e-9)
    told = str([read_dataset(ran.location, ran.manifest, name).to_pylist() for name in ran.manifest.datasets])
    told += (ran.location / "manifest.json").read_bytes().decode() + (
        ran.location / "summary.json"
    ).read_bytes().decode()
    headers = [pydicom.dcmread(file) for file in batch.folder.glob("*-lateral.dcm")]
    known = [
        str(getattr(header, name)) for header in headers for name in ("PatientName", "PatientID", "StudyInstanceUID")
    ]
    assert not any(word in told for word in [*known, ".dcm", "plain.png"])
    assert pseudonym(project_key(), "file", "words.jpg") in told


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (("labels=[nodule]", 'described=["nodule: round; small"]'), ErrorCode.CONFIG_INVALID),
        (("threshold=0.5", "operating_point=f1"), ErrorCode.REQUEST_INVALID),
        (("labels=['']",), ErrorCode.REQUEST_INVALID),
        (("encoder.device=cuda",), ErrorCode.CONFIG_INVALID),
    ],
)
def test_a_wrong_question_is_told_before_anything_is_read(
    tiny_checkpoint: Path, tmp_path: Path, asked: tuple[str, ...], code: ErrorCode
) -> None:
    with pytest.raises(MedfilipError) as caught:
        run_job("diagnose_batch", "images=/nowhere", f"checkpoint={tiny_checkpoint}", f"root={tmp_path}", *asked)
    assert caught.value.code is code and not list(tmp_path.iterdir())


def test_nothing_to_diagnose_is_told_with_the_reasons(ray_cluster: None, tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "words.jpg").write_bytes(b"no picture")
    asked = (f"images={tmp_path}/images", f"checkpoint={tiny_checkpoint}", f"root={tmp_path}/runs", "quiet=true")
    with pytest.raises(MedfilipError) as caught:
        run_job("diagnose_batch", *asked)
    assert caught.value.code is ErrorCode.INPUT_EMPTY and "image_unsupported" in caught.value.message
    with pytest.raises(MedfilipError) as caught:
        run_job("diagnose_batch", *asked, "encoder.device=cuda", "encoder.num_gpus=1")
    assert caught.value.code is ErrorCode.CONFIG_INVALID and "Ray sees 0 GPUs" in caught.value.message


def test_the_outcome_fits_a_terminal(batch: Batch, tiny_checkpoint: Path) -> None:
    told = medfilip_here(
        "diagnose-batch", f"images={batch.folder}", f"checkpoint={tiny_checkpoint}",
        f"root={batch.folder.parent}/runs", *ASKED,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    lines = [line for line in told.stdout.splitlines() if not line.startswith("run:")]
    assert max(map(len, lines)) <= 100
    [line] = [line for line in lines if line.startswith("small left pleural effusion")]
    decided = [row["decision"] for row in batch.rows("diagnoses") if row["label"] == "small left pleural effusion"]
    assert line.split()[4] == (str(decided.count("present")) if decided.count("present") else "–")
    assert "synthetic training data; research use only." in told.stdout


def test_the_endpoint_says_the_same(batch: Batch, endpoint: Endpoint) -> None:
    from medfilip.client import Client

    rows = batch.rows("diagnoses")
    with Client(endpoint.url, endpoint.api_key) as client:
        for study, paths in paths_of(batch).items():
            name, _, phrases = DESCRIBED.partition(": ")
            answer = client.diagnose(
                [batch.folder / path for path in paths], list(LABELS), described={name: phrases.split("; ")},
                threshold=0.4, attributes=2,
            )  # fmt: skip
            mine: Sequence[dict] = [row for row in rows if row["study_id"] == study]
            assert [row["label"] for row in mine] == [finding.label for finding in answer.findings]
            for row, finding in zip(mine, answer.findings, strict=True):
                assert_equal(row, finding)
            assert (mine[0]["model"], mine[0]["label_set"]) == (answer.model.fingerprint, answer.model.label_set)


@pytest.fixture(scope="module")
def endpoint(ray_cluster: None, tiny_checkpoint: Path):
    from serve.local import running_endpoint
    from serve.settings import ServeSettings

    with running_endpoint(tiny_checkpoint, ServeSettings(checkpoint=str(tiny_checkpoint), port=0)) as served:
        yield served
