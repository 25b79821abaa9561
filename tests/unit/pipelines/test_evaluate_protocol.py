"""The evaluation by a protocol without a cluster: each image keeps its own embedding, and test chooses no threshold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from medfilip.evaluation.metrics import best_threshold
from medfilip.evaluation.protocols.protocol import EVALUATED
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.preprocess import png_decode, to_model
from medfilip.model.diagnoser import Diagnoser
from medfilip.phantom.layouts.corpus import write_layout
from medfilip.phantom.study import StudyOptions
from medfilip.storage.location import Location
from pipelines.evaluate_protocol import EvaluateProtocolSettings, encode_part, read_encoded, score
from pipelines.protocol_images import DataSet


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nih")
    write_layout(folder, "chestxray14", 40, 3, options=StudyOptions(size=64, prevalence=0.3))
    return folder


def settings(data: Path, checkpoint: Path) -> EvaluateProtocolSettings:
    return EvaluateProtocolSettings(
        protocol="chestxray14", data=str(data), checkpoint=str(checkpoint), resamples=10, allow_partial=True
    )


@pytest.fixture(scope="module")
def data_set(data: Path, tiny_checkpoint: Path) -> DataSet:
    return DataSet.of("chestxray14", str(data), settings(data, tiny_checkpoint))


def test_every_image_keeps_its_own_embedding(
    data: Path, data_set: DataSet, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    places = {"staging": Location.parse(tmp_path), "data": Location.parse(data)}
    checkpoint = Location.parse(tiny_checkpoint)
    images = data_set.images(EVALUATED)
    record = encode_part((0, images), **places, checkpoint=checkpoint, limits=ImageLimits())
    assert record["rejected"] == []
    rows = pq.read_table(tmp_path / record["path"]).to_pylist()
    assert [row["image_id"] for row in rows] == [image.image_id for image in images]
    assert [(row["patient_id"], row["split"]) for row in rows] == [(image.patient, image.split) for image in images]
    assert {row["sex"] for row in rows} == {"F", "M"} and all(0 < row["age_years"] <= 90 for row in rows)
    assert {row["view_position"] for row in rows} <= {"PA", "AP"}
    diagnoser = Diagnoser.load(tiny_checkpoint)
    upright = len(rows) - record["corrected"]
    same = 0
    for row, image in zip(rows, images, strict=True):
        pixels = to_model(png_decode((data / image.name).read_bytes()), diagnoser.image_size)
        alone = diagnoser.encode_images(pixels[None])[0]
        same += bool(np.allclose(row["embedding"], alone, atol=1e-5))
    assert same >= upright > len(rows) // 2


def test_thresholds_come_from_validation_alone(
    data: Path, data_set: DataSet, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    staging, checkpoint = Location.parse(tmp_path), Location.parse(tiny_checkpoint)
    images, table = data_set.images(EVALUATED), data_set.table
    record = encode_part(
        (0, images), staging=staging, data=Location.parse(data), checkpoint=checkpoint, limits=ImageLimits()
    )
    encoded = read_encoded(staging, [record])
    scored = score(settings(data, tiny_checkpoint), data_set, encoded, checkpoint)
    diagnoser = Diagnoser.load(tiny_checkpoint)
    validation = encoded.images.of_split("validation")
    assert validation.column("image_id") == [table.image_ids[at] for at in table.rows("validation")]
    bank = diagnoser.encode_labels(table.protocol.categories)
    probability_NL = diagnoser.score(validation.image_ND, bank).probability_NL
    chosen = 0
    for at, label in enumerate(scored.diagnosis.zero_shot.labels):
        truth_N = table.truth_NL[table.rows("validation"), at].astype(np.int64)
        threshold = best_threshold(truth_N, probability_NL[:, at])
        assert label.threshold == (0.5 if threshold is None else threshold)
        assert label.threshold_from == ("default" if threshold is None else "validation")
        chosen += threshold is not None
    assert chosen, "validation chose no threshold at all"
    assert f"best F1 on {len(validation)} images of the validation split" in scored.facts["thresholds"]
    assert scored.diagnosis.zero_shot.images == len(table.rows("test"))
