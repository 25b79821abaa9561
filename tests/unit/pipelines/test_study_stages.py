"""A batch of studies without Ray: images from files, tables and an ingest, grouped by study, answered, each once."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import medfilip
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.ids import pseudonym
from medfilip.findings.ontology import load_ontology
from medfilip.imaging.corpora import ImageCorpus, list_images
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.preprocess import DEFAULT_STORE_SIZE
from medfilip.model.question import Question
from medfilip.phantom.study import make_study
from medfilip.storage.location import Location
from medfilip.storage.manifest import Shard
from medfilip.storage.schemas import DATASETS
from medfilip.storage.shards import read_shard
from pipelines.model_pool import ModelPool
from pipelines.runtime import Attempts
from pipelines.study_answers import ShardAnswerer
from pipelines.study_images import FileImages
from pipelines.study_stages import ChunkEncoder, ChunkReader, EncodedImage, Place, Studies, chunks, group_studies

KEY = b"key-of-the-tests"
TABLE = "path,study_id,view\na.png,one,PA\nb.png,one,lateral\nc.png,two,lateral\ngone.png,two,PA\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, name in enumerate("abc"):
        grey = (make_study(7, number, size=200).image >> 4).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(grey).save(buffer, "PNG")
        (folder / f"{name}.png").write_bytes(buffer.getvalue())
    (folder / "list.csv").write_text(TABLE)
    return folder


@pytest.fixture
def source(folder: Path, tmp_path: Path) -> FileImages:
    listing = list_images(ImageCorpus(Location.parse(folder / "list.csv")), load_ontology())
    return FileImages.of(
        listing, Location.parse(tmp_path / "listing.parquet"), key=KEY, limits=ImageLimits(),
        store_size=DEFAULT_STORE_SIZE, image_size=32, keep_paths=True,
    )  # fmt: skip


@pytest.fixture
def pool(tiny_checkpoint: Path) -> ModelPool:
    return ModelPool(
        checkpoint=Location.parse(tiny_checkpoint), image_size=32, unfamiliar_from=1.0, device="cpu",
        max_batch_size=2, replicas=(1, 1), num_cpus=1, num_gpus=0,
    )  # fmt: skip


def test_a_table_of_studies_gives_the_numbers_of_the_library(
    source: FileImages, pool: ModelPool, folder: Path, tmp_path: Path
) -> None:
    staging, run = Location.parse(tmp_path / "staging"), Location.parse(tmp_path / "run")
    read = ChunkReader(source, 3, frozenset(), Attempts.of(staging, "read"))
    encode = ChunkEncoder(staging, pool, Attempts.of(staging, "encode"))
    images: list[EncodedImage] = []
    rejected: list[dict] = []
    for table in read(pa.table({"part": [0]})):
        [row] = table.to_pylist()
        encode(row)
        record = json.loads((staging / "records" / "encode" / f"{row['chunk']}.json").read_bytes())
        images += [EncodedImage(row["chunk"], at, *told) for at, told in enumerate(record["images"])]
        rejected += record["rejected"]
    assert [image.chunk for image in images] == ["part-00000-0000"] * 3 and source.sizes() == (4,)
    assert [(row["id"], row["code"]) for row in rejected] == [("gone.png", ErrorCode.IMAGE_MISSING)]

    studies, refused = group_studies(images, 4)
    assert not refused and [len(study) for study in studies] == [2, 1]
    question = Question(labels=("pleural_effusion", "cardiomegaly"), attributes=1)
    answer = ShardAnswerer(run, staging, pool, question, Attempts.of(staging, "answer"))
    answer({"shard": "part-00000", "studies": json.dumps(studies)})
    record = json.loads((staging / "records" / "answer" / "part-00000.json").read_bytes())
    found = {
        name: read_shard(run, Shard(**shard), DATASETS[name]).to_pylist() for name, shard in record["shards"].items()
    }
    assert [row["path"] for row in found["diagnosed_images"]] == ["a.png", "b.png", "c.png"]
    rows = found["diagnoses"]
    assert [row["study_id"] for row in rows[::2]] == [pseudonym(KEY, "study", name) for name in ("one", "two")]
    assert [row["views"] for row in rows[::2]] == [["frontal", "lateral"], ["lateral"]]
    model = medfilip.load(pool.checkpoint.path)
    expected = model.diagnose([[folder / "a.png", folder / "b.png"], folder / "c.png"], list(question.labels))
    told = [finding.probability for diagnosis in expected for finding in diagnosis]
    assert [row["probability"] for row in rows] == pytest.approx(told, abs=1e-5)
    # The table says that the second study has no frontal image, which alone shows the size of the heart.
    assert [row["abstention"] for row in rows] == [None, None, None, "view"]
    assert sum(sum(found.values()) for found in record["labels"].values()) == len(rows) == 4


def test_chunks_that_are_done_are_not_read(source: FileImages, tmp_path: Path) -> None:
    staging = Location.parse(tmp_path / "staging")
    assert chunks(0, 4, 3) == ["part-00000-0000", "part-00000-0001"] and chunks(0, 0, 3) == []
    done = frozenset({"part-00000-0000"})
    [table] = ChunkReader(source, 3, done, Attempts.of(staging, "read"))(pa.table({"part": [0]}))
    assert table["chunk"].to_pylist() == ["part-00000-0001"]


def test_a_part_that_ends_its_worker_again_and_again_is_told(source: FileImages, tmp_path: Path) -> None:
    attempts = Attempts.of(Location.parse(tmp_path / "staging"), "read")
    read = ChunkReader(source, 3, frozenset(), attempts)
    for _ in range(3):
        next(read(pa.table({"part": [0]})))
    with pytest.raises(MedfilipError) as caught:
        next(read(pa.table({"part": [0]})))
    assert caught.value.code is ErrorCode.INTERNAL and "part-00000" in caught.value.message


def test_an_unforeseen_failure_costs_one_file_and_quotes_nothing(
    source: FileImages, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("Quillfeather")

    monkeypatch.setattr("pipelines.study_images.take_in", fail)
    row = source.table(0).to_pylist()[0]
    with pytest.raises(MedfilipError) as caught:
        source.take(row)
    assert caught.value.code is ErrorCode.INTERNAL and "KeyError" in caught.value.message
    assert "Quillfeather" not in str(caught.value) + caplog.text


def image(number: int, study: str, **changes: str) -> EncodedImage:
    told = {"name": f"{number}.dcm", "image_id": f"i{number}", "pixel_hash": f"h{number}"} | changes
    return EncodedImage("chunk", number, study_id=study, **told)


def test_studies_come_in_the_order_of_their_first_images_wherever_the_others_lie() -> None:
    studies, refused = group_studies([image(0, "b"), image(1, "a"), image(2, "b")], 2)
    assert studies == [[Place("chunk", 0), Place("chunk", 2)], [Place("chunk", 1)]] and not refused


@pytest.mark.parametrize(
    ("again", "kept"),
    [
        (image(1, "a", image_id="i0"), 1),
        (image(1, "b", image_id="i0"), 1),
        (image(1, "a", pixel_hash="h0"), 1),
        (image(1, "b", pixel_hash="h0"), 2),
    ],
    ids=["same-id", "same-id-in-another-study", "same-pixels", "same-pixels-in-another-study"],
)
def test_an_image_weighs_once_in_its_study(again: EncodedImage, kept: int) -> None:
    studies, refused = group_studies([image(0, "a"), again], 2)
    assert sum(map(len, studies)) == kept
    assert [row["code"] for row in refused] == [ErrorCode.IMAGE_DUPLICATE] * (2 - kept)
    assert all(row["id"] == "1.dcm" for row in refused)


def test_a_study_of_too_many_images_is_refused_whole() -> None:
    studies, refused = group_studies([image(0, "a"), image(1, "b"), image(2, "a")], 1)
    expected: Studies = [[Place("chunk", 1)]]
    assert studies == expected and [row["id"] for row in refused] == ["0.dcm", "2.dcm"]
    assert {row["code"] for row in refused} == {ErrorCode.STUDY_TOO_LARGE}


@pytest.mark.parametrize(("size", "images"), [(32, 64), (224, 64), (512, 32), (4096, 1)])
def test_a_chunk_stays_small_whatever_the_model_takes(pool: ModelPool, size: int, images: int) -> None:
    from dataclasses import replace

    assert replace(pool, image_size=size).chunk_images == images
