"""The image half of ingest as a plain class: what becomes of files, and that a model sees the same bits everywhere."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from medfilip.core.errors import ErrorCode
from medfilip.findings.ontology import load_ontology
from medfilip.imaging.corpora import ImageCorpus, list_images
from medfilip.imaging.intake import QualityChecks
from medfilip.imaging.limits import ImageLimits
from medfilip.phantom.study import make_study
from medfilip.storage.location import Location
from medfilip.storage.schemas import IMAGES, REJECTED
from medfilip.storage.shards import decode_shard
from medfilip.training.images import preprocessing
from pipelines.images import ImageIngester, ImageOptions, age_years, characteristics
from pipelines.ingest import IngestSettings
from serve.decoding import DecoderService
from serve.messages import Decoded
from tests.support.dicoms import make_dicom

STORE_SIZE = 300
FILES = ("rle.dcm", "inverse.dcm", "window.dcm", "deep.png", "turned.png", "grey.jpg")


def raster(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    deep = make_study(5, 2, size=512).image[:, :400]
    grey = (deep >> 4).astype(np.uint8)
    files = {
        "rle.dcm": make_dicom(deep, syntax="1.2.840.10008.1.2.5", SOPInstanceUID="2.25.1"),
        "inverse.dcm": make_dicom(4095 - deep, PhotometricInterpretation="MONOCHROME1", SOPInstanceUID="2.25.2"),
        "window.dcm": make_dicom(deep, WindowCenter=1800, WindowWidth=3000, SOPInstanceUID="2.25.3"),
        "deep.png": raster((deep.astype(np.uint32) * 16).astype(np.uint16), "PNG"),
        "turned.png": raster(np.ascontiguousarray(np.rot90(255 - grey)), "PNG"),
        "grey.jpg": raster(grey, "JPEG"),
        "knee.dcm": make_dicom(deep, BodyPartExamined="KNEE"),
        "words.dcm": b"not an image",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def staged(folder: Path, tmp_path: Path, **changes: object) -> tuple[list[dict], list[dict]]:
    listing = list_images(ImageCorpus(Location.parse(folder)), load_ontology())
    file, staging = Location.parse(tmp_path / "listing.parquet"), Location.parse(tmp_path / "staging")
    assert listing.write(file) == 1
    options = {
        "key": b"k" * 16,
        "limits": ImageLimits(),
        "checks": QualityChecks(),
        "store_size": STORE_SIZE,
        "excluded": frozenset(),
        "keep_characteristics": False,
        "source": None,
    }
    ingester = ImageIngester(listing.folder, file, staging, ImageOptions(**options | changes), None)
    record = ingester(0)
    tables = [
        decode_shard((staging / f"{name}/part-00000.parquet").read_bytes(), staging, schema).to_pylist()
        for name, schema in (("images", IMAGES), ("images_rejected", REJECTED))
    ]
    assert (record["rows"], record["rejected"]) == (len(tables[0]), len(tables[1]))
    assert record["without_patient"] == sum(row["source"] == "image" for row in tables[0])
    return tables[0], tables[1]


def test_training_and_endpoint_see_the_same_bits(folder: Path, tmp_path: Path) -> None:
    rows, _ = staged(folder, tmp_path)
    names = [name for name in sorted(path.name for path in folder.iterdir()) if name in FILES]
    assert len(rows) == len(names) == len(FILES)
    decoder = DecoderService(ImageLimits(), store_size=STORE_SIZE)
    for name, row in zip(names, rows, strict=True):
        served = decoder.decode((folder / name).read_bytes(), 96)
        assert isinstance(served, Decoded)
        trained = preprocessing(96)(row["pixels"])
        assert trained.dtype == served.pixels.dtype == np.float32 and trained.shape == (1, 96, 96)
        assert trained.tobytes() == served.pixels.tobytes(), name
    decoder.close()


def test_what_is_refused_has_its_code_and_no_name(folder: Path, tmp_path: Path) -> None:
    _, rejected = staged(folder, tmp_path)
    assert {row["code"] for row in rejected} == {ErrorCode.IMAGE_NOT_CHEST, ErrorCode.IMAGE_UNSUPPORTED}
    assert not any("knee" in str(row) or "CANARY" in str(row) for row in rejected)


def test_rows_say_what_was_there_and_what_was_done(folder: Path, tmp_path: Path) -> None:
    rows, _ = staged(folder, tmp_path)
    assert {row["view_source"] for row in rows} == {"header", "pixels"} and {row["view"] for row in rows} == {"frontal"}
    assert {(row["source_height"], row["source_width"]) for row in rows} == {(512, 400)}  # set upright
    assert all(max(row["height"], row["width"]) == STORE_SIZE for row in rows)
    [turned] = [row for row in rows if "rotated" in row["quality"]]
    assert turned["height"] > turned["width"] and set(turned["quality"]) >= {"inverted", "rotated"}
    assert all(row["sex"] is None and row["age_years"] is None for row in rows)


def test_characteristics_are_kept_on_request_and_excluded_patients_are_not(folder: Path, tmp_path: Path) -> None:
    rows, _ = staged(folder, tmp_path, keep_characteristics=True)
    assert {(row["sex"], row["age_years"]) for row in rows if row["source"] == "dicom"} == {("F", 54)}
    rows, rejected = staged(folder, tmp_path, excluded=frozenset({"CANARY-ID"}))
    assert {row["source"] for row in rows} == {"image"}
    assert sum(row["code"] == ErrorCode.EXCLUDED for row in rejected) == 3


@pytest.mark.parametrize(
    ("word", "sex"), [("Female", "F"), ("M", "M"), ("other", "O"), ("Mujer", None), ("missing", None), (None, None)]
)
def test_a_sex_is_told_by_whole_words(word: str | None, sex: str | None) -> None:
    assert characteristics(word, None)["sex"] == sex


@pytest.mark.parametrize(
    ("text", "years"),
    [("57", 57), ("057Y", 57), ("18M", 1), ("101", 90), ("094Y", 90), ("3.0", 3), ("1-5 (cohort)", None), (None, None)],
)
def test_ages(text: str | None, years: int | None) -> None:
    assert age_years(text) == years


@pytest.mark.parametrize("settings", [{"reports": "r", "image_table": "t"}, {"images": "i", "image_kind": "folder"}])
def test_a_table_that_would_not_be_read_is_told(settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="table"):
        IngestSettings.model_validate({"image_table": "t"} | settings)
