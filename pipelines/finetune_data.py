"""What a fine-tuning starts from: images with what is known of them, of our own runs or of a public data set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.protocols.known import truth_of
from medfilip.evaluation.study_truth import Corpus, studies_of_reports, study_truth
from medfilip.evaluation.truth import Truth
from medfilip.findings.truth import UNKNOWN
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest, read_manifest
from medfilip.storage.run import Run
from medfilip.storage.shards import decode_table
from medfilip.transfer.labelled import list_images
from medfilip.transfer.masks import MaskSource, PhantomMasks, ProtocolMasks
from pipelines.protocol_images import RECORD, DataSet, Image, Rows, store_images
from pipelines.runtime import Progress, map_parts
from pipelines.sentences import NumberedShard, numbered_shards

LISTED = "listed.parquet"
SPLITS = ("train", "validation", "test")


class MaskPlace(BaseModel):
    """Where masks lie, as plain data for workers.

    Attributes
    ----------
    of
        ``phantom``: a corpus that was written with masks; ``protocol``: a data set whose protocol reads them.
    folder
        That of the corpus or of the data set.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    of: Literal["phantom", "protocol"]
    folder: str

    def source(self, images: Location, listed: pa.Table) -> MaskSource:
        """Return the masks of the listed images of a run."""
        if self.of == "protocol":
            return ProtocolMasks(Location.parse(self.folder))
        studies = {study: report for report, study in studies_of_reports(images).items()}
        return PhantomMasks.of(Path(self.folder), studies, listed)


@dataclass(frozen=True)
class Given:
    """Images that are ready to be listed and read.

    Attributes
    ----------
    images, manifest
        The run that has them.
    truth
        What is known of their studies.
    masks
        Where their masks lie, if they are wanted.
    facts
        What is told of them.
    files
        Further outputs of the job, by name.
    rejected
        Rows of images that could not be read.
    """

    images: Location
    manifest: Manifest
    truth: Truth
    masks: MaskPlace | None
    facts: dict[str, Any]
    files: dict[str, bytes] = field(default_factory=dict)
    rejected: Rows = field(default_factory=list)

    @property
    def synthetic(self) -> bool:
        """Whether some of them are phantoms."""
        return self.manifest.counts.get("synthetic_images", 0) > 0


class Source(Protocol):
    """Where a fine-tuning takes images and truth from."""

    def inputs(self) -> dict[str, str]:
        """Return the fingerprints of all that is read of it."""
        ...

    def ready(self, run: Run, progress: Progress) -> Given:
        """Bring the images where they can be read by shard and row; called with a cluster."""
        ...


@dataclass(frozen=True)
class OfRuns:
    """Runs of ingest and extract, and what was drawn if they are of phantoms.

    Attributes
    ----------
    findings
        The extract run; what was drawn decides over it.
    silent
        What the silence of a report means.
    masked
        Whether masks are wanted.
    """

    images: Location
    findings: Location | None
    corpus: Corpus
    silent: int = UNKNOWN
    masked: bool = False

    def inputs(self) -> dict[str, str]:
        """See `Source`."""
        found = {"images": read_manifest(self.images).fingerprint}
        if self.findings is not None:
            found["findings"] = read_manifest(self.findings).fingerprint
        if self.corpus.folder is not None:
            found["truth"] = self.corpus.fingerprint
        return found

    def ready(self, run: Run, progress: Progress) -> Given:
        """See `Source`."""
        drawn = self.corpus.folder is not None
        return Given(
            self.images,
            read_manifest(self.images),
            study_truth(None if drawn else self.findings, self.corpus, self.images, silent=self.silent),
            MaskPlace(of="phantom", folder=str(self.corpus.folder)) if self.masked else None,
            {"truth": "drawn by the phantom generator" if drawn else "stated in the reports"},
        )


@dataclass(frozen=True)
class OfDataSet:
    """A public data set, with the splits and labels of its protocol.

    Attributes
    ----------
    masked
        Whether masks are wanted.
    """

    data_set: DataSet
    masked: bool = False

    @property
    def _images(self) -> list[Image]:
        return self.data_set.images(SPLITS)

    def inputs(self) -> dict[str, str]:
        """See `Source`."""
        return self.data_set.inputs(self._images)

    def ready(self, run: Run, progress: Progress) -> Given:
        """See `Source`."""
        data_set = self.data_set
        protocol, record = data_set.table.protocol, data_set.table.record
        images = run.staging / "data_set"
        manifest, rejected = store_images(images, data_set, self._images, progress)
        partial_of = f"{len(rejected)} images could not be read; " if rejected else ""
        facts = {
            "truth": f"labels of {protocol.title}" + (" and its masks" if self.masked else ""),
            "protocol": f"{protocol.id}: {protocol.title}, {protocol.version}",
            "completeness": partial_of + record.completeness,
            "files": record.pins,
            "split": protocol.split.official,
            "split fingerprint": record.split_fingerprint,
        }
        return Given(
            images,
            manifest,
            truth_of(data_set.table),
            MaskPlace(of="protocol", folder=str(data_set.data)) if self.masked else None,
            facts,
            {RECORD: json.dumps(data_set.describe(rejected, facts=facts), indent=2).encode() + b"\n"},
            rejected,
        )


def list_given(given: Given, staging: Location, category: str) -> pa.Table:
    """List the images on the cluster, a shard a part, with the state of each one's mask of a category."""
    work = partial(_list_shard, staging=staging, images=given.images, masks=given.masks, category=category)
    parts = map_parts(staging, "list", work, numbered_shards(given.manifest, "images"))
    listed = pa.concat_tables([read_table(staging / part["path"]) for part in parts])
    if given.masks is not None and not any(state >= 0 for state in listed["mask"].to_pylist()):
        raise MedfilipError(
            ErrorCode.MASK_UNFIT,
            f"No image of {listed.num_rows} has a mask of '{category}' that lies on it.",
            fix="Give masks and images that belong together, in the pixels in which they are shipped.",
        )
    write_table(staging / LISTED, listed)
    return listed


def _list_shard(
    numbered: NumberedShard, *, staging: Location, images: Location, masks: MaskPlace | None, category: str
) -> dict[str, Any]:
    number, shard = numbered
    source = partial(masks.source, images) if masks is not None else None
    path = f"listed/part-{number:05d}.parquet"
    write_table(staging / path, list_images(images, shard, number, category=category, masks=source))
    return {"path": path}


def read_table(location: Location) -> pa.Table:
    """Read a table that `write_table` wrote."""
    return decode_table(location.read_bytes(), location)


def write_table(location: Location, table: pa.Table) -> None:
    """Write an intermediate table."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    location.write_bytes(sink.getvalue().to_pybytes())


def rejected_counts(given: Given, unfit: int) -> dict[str, int]:
    """Return how many images were refused, by reason."""
    codes: Sequence[str] = [str(row["code"]) for row in given.rejected] + [str(ErrorCode.MASK_UNFIT)] * unfit
    return {code: codes.count(code) for code in dict.fromkeys(codes)}
