"""Images of an ingest run with what is known of them: the table that every fine-tuning starts from.

Labels come from the truth about studies (`medfilip.evaluation.truth`), or from masks.

Legend of tensor names: N images, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medfilip.evaluation.truth import Truth
from medfilip.findings.truth import ABSENT, PRESENT, UNKNOWN
from medfilip.storage.location import Location
from medfilip.storage.manifest import Shard
from medfilip.storage.schemas import IMAGES
from medfilip.storage.shards import read_shard
from medfilip.transfer.masks import MaskSource, fitted

Ints = NDArray[np.int64]
_COLUMNS = ["image_id", "study_id", "patient_id", "view", "quality", "height", "width", "split"]
_COLUMNS += ["source_height", "source_width", "source_transfer_syntax", "pixel_hash"]


@dataclass(frozen=True)
class Labelled:
    """Images and truth, in the order in which images are stored.

    Attributes
    ----------
    images, patients, splits
        Of each image.
    shard_N, row_N
        Where its pixels lie in the ingest run.
    labels
        Categories.
    truth_NL
        1 present, 0 absent, -1 unknown.
    """

    images: tuple[str, ...]
    patients: tuple[str, ...]
    splits: tuple[str, ...]
    shard_N: Ints
    row_N: Ints
    labels: tuple[str, ...]
    truth_NL: Ints

    def __len__(self) -> int:
        return len(self.images)

    def rows(self, split: str) -> Ints:
        """Positions of a split's images of which anything is known."""
        known_N = (self.truth_NL != UNKNOWN).any(axis=1)
        return np.flatnonzero((np.asarray(self.splits) == split) & known_N)

    def patients_of(self, rows: Ints) -> list[str]:
        """Return the patients of some images."""
        return [self.patients[row] for row in rows]

    def table(self) -> pa.Table:
        """Return it as a table that `of_table` reads."""
        names = ("images", "patients", "splits", "shard_N", "row_N")
        table = pa.table({name: pa.array(getattr(self, name)) for name in names})
        for at, label in enumerate(self.labels):
            table = table.append_column(f"truth/{label}", pa.array(self.truth_NL[:, at]))
        return table

    @classmethod
    def of_table(cls, table: pa.Table) -> Labelled:
        """Read what `table` returned."""
        labels = [name.removeprefix("truth/") for name in table.column_names if name.startswith("truth/")]
        truth = [table[f"truth/{label}"].to_numpy() for label in labels]
        return cls(
            images=tuple(table["images"].to_pylist()),
            patients=tuple(table["patients"].to_pylist()),
            splits=tuple(table["splits"].to_pylist()),
            shard_N=table["shard_N"].to_numpy(),
            row_N=table["row_N"].to_numpy(),
            labels=tuple(labels),
            truth_NL=np.stack(truth, axis=1).astype(np.int64) if truth else np.zeros((table.num_rows, 0), np.int64),
        )


def list_images(
    run: Location,
    shard: Shard,
    number: int,
    *,
    category: str = "",
    masks: Callable[[pa.Table], MaskSource] | None = None,
) -> pa.Table:
    """Return the images of a shard without their pixels.

    Columns are ``image_id``, ``study_id``, ``patient_id``, ``view``, ``split``, ``height``, ``width``, ``pixel_hash``,
    ``shard`` and ``row``; with a source of masks for such a table also ``mask``: 1 and 0 for a mask with pixels and an
    empty one, -1 where there is none, -2 where it does not fit its image.
    """
    table = read_shard(run, shard, IMAGES, _COLUMNS)
    rows = np.arange(table.num_rows)
    listed = table.select(["image_id", "study_id", "patient_id", "view", "split", "height", "width", "pixel_hash"])
    listed = listed.append_column("shard", pa.array(np.full(len(rows), number))).append_column("row", pa.array(rows))
    if masks is None:
        return listed
    source = masks(listed)
    return listed.append_column("mask", pa.array([_mask_state(row, source, category) for row in table.to_pylist()]))


UNFIT = -2


def _mask_state(row: Mapping[str, object], masks: MaskSource, category: str) -> int:
    mask = masks.get(str(row["image_id"]), category)
    if mask is None:
        return UNKNOWN
    if not fitted(mask, row):
        return UNFIT
    return PRESENT if mask.any() else ABSENT


def from_truth(listed: pa.Table, candidates: Sequence[str], truth: Truth) -> Labelled:
    """Label images with the truth of their studies; what a view cannot show is unknown in it."""
    truth_NL = truth.states(listed["study_id"].to_pylist(), listed["view"].to_pylist(), candidates)
    return _labelled(listed, candidates, truth_NL)


def from_masks(listed: pa.Table, category: str) -> Labelled:
    """Label images with whether their mask has pixels; those without a fitting mask are unknown."""
    state_N = listed["mask"].to_numpy()
    return _labelled(listed, [category], np.where(state_N == UNFIT, UNKNOWN, state_N)[:, None].astype(np.int64))


def _labelled(listed: pa.Table, labels: Sequence[str], truth_NL: Ints) -> Labelled:
    patients = zip(listed["patient_id"].to_pylist(), listed["study_id"].to_pylist(), strict=True)
    return Labelled(
        tuple(listed["image_id"].to_pylist()),
        tuple(patient if patient is not None else f"study {study}" for patient, study in patients),
        tuple(listed["split"].to_pylist()),
        listed["shard"].to_numpy(),
        listed["row"].to_numpy(),
        tuple(labels),
        truth_NL,
    )


def choose_labels(labelled: Labelled, least: int) -> list[str]:
    """Return the labels with at least ``least`` images with and without them in each split that is trained or scored.

    Validation is not asked: it chooses strengths and steps by the labels that it does have.
    """
    chosen = []
    for at, label in enumerate(labelled.labels):
        counts = [
            int((labelled.truth_NL[labelled.rows(split), at] == value).sum())
            for split in ("train", "test")
            for value in (PRESENT, ABSENT)
        ]
        if min(counts) >= least:
            chosen.append(label)
    return chosen


def only(labelled: Labelled, labels: Iterable[str]) -> Labelled:
    """Return the same images with some of the labels."""
    chosen = list(labels)
    columns = [labelled.labels.index(label) for label in chosen]
    return Labelled(
        labelled.images, labelled.patients, labelled.splits, labelled.shard_N, labelled.row_N,
        tuple(chosen), labelled.truth_NL[:, columns],
    )  # fmt: skip
