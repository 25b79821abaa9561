"""Images of an ingest run with what is known of them: the table that every fine-tuning starts from.

Truth comes from resolved findings, from what a phantom generator drew, or from masks. What nobody knows is
`UNKNOWN`: it is masked out of losses and metrics, never counted as absent.

Legend of tensor names: N images, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.findings.ontology import Ontology
from medfilip.findings.truth import ABSENT, PRESENT, UNKNOWN, category_truth
from medfilip.imaging.given import radiograph_of
from medfilip.imaging.isolation import shared_decoder
from medfilip.imaging.limits import ImageLimits
from medfilip.phantom.corpus import read_truth
from medfilip.storage.location import Location
from medfilip.storage.manifest import Shard, read_manifest
from medfilip.storage.schemas import IMAGES
from medfilip.storage.shards import iter_shards, read_dataset, read_shard
from medfilip.transfer.masks import MaskSource, fitted

Ints = NDArray[np.int64]
Truth = Callable[[str, str], int]
"""Study and category → 1, 0 or -1."""

_COMPARED = 3
_COLUMNS = ["image_id", "study_id", "patient_id", "view", "quality", "height", "width", "split"]
_COLUMNS += ["source_height", "source_width", "pixel_hash"]


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


def from_truth(listed: pa.Table, candidates: Sequence[str], truth: Truth, ontology: Ontology) -> Labelled:
    """Label images with the truth of their studies; what a view cannot show is unknown in it."""
    studies, views = listed["study_id"].to_pylist(), listed["view"].to_pylist()
    shows = {name: ontology.categories[name].views for name in candidates}
    truth_NL = np.array(
        [
            [
                truth(study, name) if view not in ("frontal", "lateral") or view in shows[name] else UNKNOWN
                for name in candidates
            ]
            for study, view in zip(studies, views, strict=True)
        ],
        np.int64,
    ).reshape(len(studies), len(candidates))
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


def stated_truth(findings: Location, ontology: Ontology, *, silent: int = UNKNOWN) -> tuple[Truth, set[str]]:
    """Return what the resolved findings of an extract run say, and the categories they speak about."""
    said: dict[str, list[tuple[str, str]]] = {}
    columns = ["study_id", "category", "certainty"]
    for table in iter_shards(findings, read_manifest(findings), "resolved_findings", columns):
        for row in table.to_pylist():
            said.setdefault(row["study_id"], []).append((row["category"], row["certainty"]))
    names = {name for statements in said.values() for name, _ in statements if name in ontology.categories}

    def truth(study: str, category: str) -> int:
        # A study that no report was read of is unknown altogether; silence is what a report does not say.
        return category_truth(said[study], category, ontology, silent=silent) if study in said else UNKNOWN

    return truth, names


def drawn_truth(corpus: Path, images: Location) -> tuple[Truth, set[str]]:
    """Return what a phantom corpus shows, by the studies of an ingest run with the corpus's report ids."""
    study_of = studies_of_reports(images)
    drawn = {
        study_of[item.report_id]: {
            name: PRESENT if found.status == "present" else ABSENT for name, found in item.study_truth.items()
        }
        for item in read_truth(corpus)
        if item.report_id in study_of
    }
    if not drawn:
        raise not_of_this_corpus()
    return lambda study, category: drawn.get(study, {}).get(category, UNKNOWN), {
        name for study in drawn.values() for name in study
    }


def studies_of_reports(images: Location) -> dict[str, str]:
    """Return the study of each report of an ingest run."""
    reports = read_dataset(images, read_manifest(images), "reports", ["report_id", "study_id"])
    return dict(zip(reports["report_id"].to_pylist(), reports["study_id"].to_pylist(), strict=True))


def check_corpus(corpus: Path, images: Location, listed: pa.Table) -> None:
    """Compare the pixels of a few listed images with those of a phantom corpus.

    Corpora of all seeds number their reports alike: equal ids do not say that truth and images belong together.

    Raises
    ------
    MedfilipError
        ``NOT_ENOUGH_DATA`` if they do not.
    """
    report_of = {study: report for report, study in studies_of_reports(images).items()}
    limits, compared = ImageLimits(), 0
    columns = (listed[name].to_pylist() for name in ("study_id", "view", "pixel_hash"))
    for study, view, known in zip(*columns, strict=True):
        file = corpus / "images" / f"{report_of.get(study)}.dcm"
        if view == "lateral" or not file.is_file():
            continue
        if radiograph_of(file, limits, shared_decoder(limits)).pixel_hash != known:
            raise not_of_this_corpus()
        compared += 1
        if compared == _COMPARED:
            return
    if not compared:
        raise not_of_this_corpus()


def not_of_this_corpus() -> MedfilipError:
    """Return the error of truth and images that do not belong together."""
    return MedfilipError(
        ErrorCode.NOT_ENOUGH_DATA,
        "The images of 'images' are not those of 'phantom_truth'.",
        fix="Give the corpus these images were made from, ingested with keep_report_ids=true.",
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
