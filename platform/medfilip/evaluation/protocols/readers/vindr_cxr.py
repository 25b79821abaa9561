"""VinDr-CXR: a column a label; three radiologists for each training image, one consensus for each test image.

A training image shows what more than half of its readers saw; where exactly half saw it, nobody knows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.protocols.folder import DataFolder
from medfilip.evaluation.protocols.listing import Listing
from medfilip.evaluation.protocols.protocol import Origin

_ID = "image_id"
_FACTS = {_ID, "rad_id", "rad_ID"}


def read(folder: DataFolder, listing: Listing) -> None:
    """Fill a listing; see the module's text."""
    images = folder.images(lambda path: "/".join(path.split("/")[-2:]))
    listing.patients_known = False
    roles: tuple[tuple[str, Origin], ...] = (("train", "train"), ("test", "test"))
    for role, origin in roles:
        table = folder.needed(role, (_ID,))
        labels = [name for name in table.column_names if name not in _FACTS and not name.startswith("column ")]
        votes_RS = _votes(table, labels, role)
        readers: dict[str, list[int]] = {}
        for at, image_id in enumerate(table[_ID].to_pylist()):
            if image_id is None:
                listing.lacks["rows_without_id"] += 1
            else:
                readers.setdefault(image_id, []).append(at)
        if origin == "test":
            _one_row_each(readers)
        for image_id, rows in readers.items():
            share_S = votes_RS[rows].mean(axis=0)
            listing.add(
                image_id,
                image_id,
                origin,
                images.get(f"{role}/{image_id}.dicom"),
                present=_named(labels, share_S > 0.5),
                uncertain=_named(labels, share_S == 0.5),
                absent=_named(labels, share_S < 0.5),
            )


def _votes(table: pa.Table, labels: Sequence[str], role: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    columns = [table[name].to_pylist() for name in labels]
    strange = [name for name, values in zip(labels, columns, strict=True) if not set(values) <= {"0", "1"}]
    if strange:
        raise MedfilipError(
            ErrorCode.SCHEMA_MISMATCH,
            f"The column '{strange[0]}' of the {role} labels has values other than 0 and 1.",
            fix="Give the file as PhysioNet ships it.",
        )
    return np.array(columns, np.float64).T.reshape(table.num_rows, len(labels))


def _named(labels: Sequence[str], chosen_S: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> list[str]:
    return [name for name, is_it in zip(labels, chosen_S, strict=True) if is_it]


def _one_row_each(readers: dict[str, list[int]]) -> None:
    several = [name for name, rows in readers.items() if len(rows) > 1]
    if several:
        raise MedfilipError(
            ErrorCode.IMAGE_DUPLICATE,
            f"{len(several)} test images have several rows, such as {several[0]}; their labels are one consensus.",
            fix="Give image_labels_test.csv as PhysioNet ships it.",
        )
