"""The table of images and truth: what is unknown stays unknown."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.truth import Shown, Truth
from medfilip.findings.ontology import load_ontology
from medfilip.imaging.preprocess import png_encode
from medfilip.storage.location import Location
from medfilip.storage.manifest import read_manifest
from medfilip.transfer.cells import check_splits
from medfilip.transfer.labelled import (
    Labelled,
    choose_labels,
    from_masks,
    from_truth,
    list_images,
    only,
)
from tests.unit.training.published import publish

ONTOLOGY = load_ontology()
PIXELS = png_encode(np.zeros((8, 8), np.uint8))


def image(at, **changes):
    return {
        "image_id": f"i{at}", "study_id": f"s{at}", "patient_id": f"p{at}", "view": "frontal", "split": "train",
        "pixels": PIXELS, "height": 8, "width": 8, "source_height": 16, "source_width": 16,
        "quality": [], "pixel_hash": "h", "source_transfer_syntax": "image/png", **changes,
    }  # fmt: skip


def listed(folder, rows, **given):
    publish(folder, {"images": rows})
    run = Location.parse(folder)
    return list_images(run, read_manifest(run).dataset("images").shards[0], 3, **given)


class Masks:
    def get(self, image_id, category):
        assert category == "pneumothorax"
        shape = (16, 16) if image_id != "i2" else (16, 8)
        mask = np.zeros(shape, np.bool_)
        mask[:4] = image_id == "i1"
        return None if image_id == "i3" else mask


def test_masks_are_looked_at_one_by_one(tmp_path):
    rows = [image(0), image(1), image(2), image(3), image(4, quality=["rotated"])]
    table = listed(tmp_path, rows, category="pneumothorax", masks=lambda _: Masks())
    assert table["mask"].to_pylist() == [0, 1, -2, -1, -2]
    assert table["shard"].to_pylist() == [3] * 5 and table["row"].to_pylist() == list(range(5))
    assert "pixels" not in table.column_names
    labelled = from_masks(table, "pneumothorax")
    assert labelled.truth_NL[:, 0].tolist() == [0, 1, -1, -1, -1]
    assert labelled.rows("train").tolist() == [0, 1]


def test_a_view_that_cannot_show_a_category_knows_nothing_of_it(tmp_path):
    frontal_only = next(name for name, one in ONTOLOGY.categories.items() if one.views == ("frontal",))
    rows = [image(0), image(1, view="lateral"), image(2, view="unknown", patient_id=None)]
    shown = {f"s{at}": {frontal_only: Shown(True), "nodule": Shown(True)} for at in range(3)}
    found = from_truth(listed(tmp_path, rows), [frontal_only, "nodule"], Truth.of([], ONTOLOGY, shown))
    assert found.truth_NL.tolist() == [[1, 1], [-1, 1], [1, 1]]
    assert found.patients == ("p0", "p1", "study s2")


def table(truth, splits):
    count = len(truth)
    return Labelled(
        tuple(f"i{at}" for at in range(count)), tuple(f"p{at}" for at in range(count)), tuple(splits),
        np.zeros(count, np.int64), np.arange(count), ("a", "b"), np.array(truth, np.int64),
    )  # fmt: skip


def test_tables_come_back_from_parquet():
    found = table([[1, 0], [-1, 1], [0, -1]], ["train", "validation", "test"])
    again = Labelled.of_table(pa.ipc.open_stream(_stream(found.table())).read_all())
    assert (again.images, again.patients, again.splits, again.labels) == (
        found.images, found.patients, found.splits, found.labels,
    )  # fmt: skip
    np.testing.assert_array_equal(again.truth_NL, found.truth_NL)
    np.testing.assert_array_equal(again.row_N, found.row_N)


def _stream(table):
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def test_labels_with_enough_of_both_classes_are_chosen():
    splits = ["train", "train", "test", "test", "validation"]
    found = table([[1, 1], [0, 1], [1, 1], [0, 0], [-1, -1]], splits)
    assert choose_labels(found, 1) == ["a"] and choose_labels(found, 2) == []
    assert only(found, ["b"]).truth_NL.tolist() == [[1], [1], [1], [0], [-1]]
    with pytest.raises(MedfilipError, match="'validation' has no image") as caught:
        check_splits(found)
    assert caught.value.code is ErrorCode.NOT_ENOUGH_DATA
