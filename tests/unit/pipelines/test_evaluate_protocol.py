"""The evaluation by a protocol without a cluster: each image keeps its own embedding, and test chooses no threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from medfilip.evaluation.metrics import best_threshold
from medfilip.evaluation.protocols.protocol import load_protocol
from medfilip.evaluation.protocols.table import ProtocolTable, read_protocol
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.preprocess import png_decode, to_model
from medfilip.model.diagnoser import Diagnoser
from medfilip.phantom.layouts.corpus import write_layout
from medfilip.phantom.study import StudyOptions
from medfilip.storage.location import Location
from pipelines.evaluate_protocol import EvaluateProtocolSettings, _images, _read_encoded, _score, encode_part


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nih")
    write_layout(folder, "chestxray14", 40, 3, options=StudyOptions(size=64, prevalence=0.3))
    return folder


@pytest.fixture(scope="module")
def table(data: Path) -> ProtocolTable:
    return read_protocol(load_protocol("chestxray14"), Location.parse(data), allow_partial=True)


def test_every_image_keeps_its_own_embedding(
    data: Path, table: ProtocolTable, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    places = {"staging": Location.parse(tmp_path), "data": Location.parse(data)}
    checkpoint = Location.parse(tiny_checkpoint)
    images = _images(table)
    record = encode_part((0, images), **places, checkpoint=checkpoint, limits=ImageLimits())
    assert record["rejected"] == []
    rows = pq.read_table(tmp_path / record["path"]).to_pylist()
    assert [row["image_id"] for row in rows] == [image.image_id for image in images]
    diagnoser = Diagnoser.load(tiny_checkpoint)
    upright = len(rows) - record["corrected"]
    same = 0
    for row, image in zip(rows, images, strict=True):
        pixels = to_model(png_decode((data / image.name).read_bytes()), diagnoser.image_size)
        alone = diagnoser.encode_images(pixels[None])[0]
        same += bool(np.allclose(row["embedding"], alone, atol=1e-5))
    assert same >= upright > len(rows) // 2


def test_thresholds_come_from_validation_alone(
    data: Path, table: ProtocolTable, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    staging, checkpoint = Location.parse(tmp_path), Location.parse(tiny_checkpoint)
    record = encode_part(
        (0, _images(table)), staging=staging, data=Location.parse(data), checkpoint=checkpoint, limits=ImageLimits()
    )
    encoded = _read_encoded(staging, [record])
    settings = EvaluateProtocolSettings(
        protocol="chestxray14", data=str(data), checkpoint=str(tiny_checkpoint), resamples=10
    )
    scored = _score(settings, table, encoded, checkpoint)
    diagnoser = Diagnoser.load(tiny_checkpoint)
    rows = table.rows("validation")
    images_ND = np.stack([encoded.images[table.image_ids[at]] for at in rows])
    probability_NL = diagnoser.score(images_ND, diagnoser.encode_labels(table.protocol.categories)).probability_NL
    chosen = 0
    for at, label in enumerate(scored.diagnosis.zero_shot.labels):
        threshold = best_threshold(table.truth_NL[rows, at].astype(np.int64), probability_NL[:, at])
        assert label.threshold == (0.5 if threshold is None else threshold)
        chosen += threshold is not None
    assert chosen, "validation chose no threshold at all"
    assert scored.diagnosis.zero_shot.images == len(table.rows("test")) and scored.synthetic
