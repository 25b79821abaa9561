"""The last step of ingest: staged parts of reports and images → published shards, after one look over all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import Settings
from medfilip.imaging.listing import ImageListing
from medfilip.reports.splits import SPLITS, SplitNumbers
from medfilip.storage.location import Location
from medfilip.storage.manifest import Shard
from medfilip.storage.run import Run
from medfilip.storage.schemas import IMAGES, REJECTED, REPORTS, RESOLVED_FINDINGS, DatasetSchema
from medfilip.storage.shards import decode_shard, write_shard
from pipelines.images import PHANTOM, rejected_rows
from pipelines.look_over import Look, Numbers, Pairs, StagedPart, Verdict, look_over
from pipelines.runtime import map_parts


class SplitShares(Settings):
    """Share of each split, by patient; a split the corpus states itself wins."""

    train: float = Field(0.7, ge=0, le=1, description="share of patients to train on")
    validation: float = Field(0.1, ge=0, le=1, description="share of patients to choose thresholds on")
    test: float = Field(0.2, ge=0, le=1, description="share of patients to test on")

    @model_validator(mode="after")
    def _sum_to_one(self) -> SplitShares:
        if abs(self.train + self.validation + self.test - 1) > 1e-6:
            raise ValueError("train, validation and test must sum to 1")
        return self


def publish(
    ingest: Run,
    reports: list[dict[str, Any]],
    images: list[dict[str, Any]],
    listing: ImageListing | None,
    shares: SplitShares,
) -> None:
    """Publish the staged parts of an ingest run; ``reports`` and ``images`` are the records of their parts."""
    pieces = {REPORTS: [piece for part in reports for piece in part["pieces"]], IMAGES: images}
    tasks, templates = plan_publishing(ingest.staging, pieces, shares)
    counts: Counter[str] = Counter({"reports_from_templates": templates} if templates else {})
    rejected: Counter[str] = Counter()
    shards: dict[str, list[Shard]] = {"reports": [], "images": [], "resolved_findings": [], "rejected": []}
    labelled = listing is not None and bool(listing.labels)
    for schema, staged in tasks.items():
        name = schema.name
        work = partial(_publish_part, run=ingest.location, staging=ingest.staging, schema=schema, labelled=labelled)
        for record in map_parts(ingest.staging, f"publish_{name}", work, staged):
            shards[name].append(Shard(**record["shard"]))
            shards["rejected"].append(Shard(**record["rejected_shard"]))
            counts.update({name: record["shard"]["rows"]} | record["splits"] | record["facts"])
            rejected.update(record["rejected"])
            if "labels" in record:
                shards["resolved_findings"].append(Shard(**record["labels"]))
            counts[f"synthetic_{name}"] += record["synthetic"]
        merged = sum(int((part.verdicts == Verdict.MERGED).sum()) for part in staged)
        counts.update({"addenda_merged": merged} if merged else {})
    if not any(shard.rows for name in ("reports", "images") for shard in shards[name]):
        raise MedfilipError(
            ErrorCode.INPUT_EMPTY,
            f"Nothing could be ingested; refused: {dict(rejected)}.",
            fix="Check that 'reports' and 'images' point at what they should.",
        )
    if listing is not None:
        counts["files_of_other_kinds"] = listing.others
        counts.update({"images_not_in_the_table": listing.unlisted} if listing.unlisted else {})
        strangers = sum(int(part["without_patient"]) for part in images)
        counts.update({"images_without_patient": strangers} if strangers else {})
    for part in reports:
        counts.update({f"decoded_{how}": number for how, number in part["decoded"].items() if how != "utf-8"})
    ingest.publish({name: found for name, found in shards.items() if found}, counts=counts, rejected=rejected)


class Given(NamedTuple):
    """Rows of a part, and for each the staged report that gives it something: place of its file in ``paths``, and row.

    Rows ascend; what is given to one row stands in order.
    """

    rows: Numbers
    paths: list[str]
    files: Numbers
    places: Numbers

    @classmethod
    def of(cls, look: Look, begin: int, pairs: Pairs) -> Given:
        """Return what is given to the rows of a part that begins at a number."""
        parts, places = look.places(pairs.others)
        held, files = np.unique(parts, return_inverse=True)
        return cls(pairs.rows - begin, [look.parts[part].path for part in held], files, places)

    def read(self, staging: Location, columns: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield each row with the columns of the report that gives."""
        found: dict[int, dict[str, Any]] = {}
        for number, path in enumerate(self.paths):
            mine = np.flatnonzero(self.files == number)
            file = staging / REPORTS.name / path
            table = decode_shard(file.read_bytes(), file, REPORTS, columns).take(self.places[mine])
            found.update(zip(mine.tolist(), table.to_pylist(), strict=True))
        yield from ((row, found[number]) for number, row in enumerate(self.rows.tolist()))


class PublishTask(NamedTuple):
    """A staged part to publish, with what the look over all parts decided, row by row.

    Reports give their text (``addenda``), or the patient of their study (``named_by``).
    """

    path: str
    verdicts: npt.NDArray[np.int8]
    splits: SplitNumbers
    addenda: Given
    named_by: Given


def plan_publishing(
    staging: Location, pieces: Mapping[DatasetSchema, Sequence[dict[str, Any]]], shares: SplitShares
) -> tuple[dict[DatasetSchema, list[PublishTask]], int]:
    """Look over all parts; return what workers need to publish them, and how many reports are templates."""
    staged = {
        schema: [
            StagedPart(piece["path"], staging / f"{schema.name}_index/{piece['path']}", piece["rows"])
            for piece in pieces[schema]
        ]
        for schema in pieces
    }
    look = Look(staged[REPORTS], staged[IMAGES])
    decided = look_over(look, shares.model_dump())
    tasks = []
    for part, begin, end in zip(look.parts, look.begins.tolist(), look.begins[1:].tolist(), strict=False):
        given = (Given.of(look, begin, pairs.within(begin, end)) for pairs in (decided.addenda, decided.named_by))
        tasks.append(PublishTask(part.path, decided.verdicts[begin:end], decided.splits[begin:end], *given))
    cut = len(staged[REPORTS])
    found = {schema: planned for schema, planned in ((REPORTS, tasks[:cut]), (IMAGES, tasks[cut:])) if planned}
    return found, decided.templates


_SUPERSEDED = ErrorCode.SUPERSEDED, "A corrected, final or later report of the same study or id stands in its place."
# By name: in a worker the schema is a copy.
_DUPLICATE = {
    REPORTS.name: (
        ErrorCode.REPORT_DUPLICATE,
        "An earlier report has the same id, or the same content in the same study.",
    ),
    IMAGES.name: (ErrorCode.IMAGE_DUPLICATE, "An earlier image has the same id or the same pixels."),
}


def _publish_part(
    part: PublishTask, *, run: Location, staging: Location, schema: DatasetSchema, labelled: bool
) -> dict[str, Any]:
    file = staging / schema.name / part.path
    table = decode_shard(file.read_bytes(), file, schema)
    refused_file = staging / f"{schema.name}_rejected" / part.path
    refused = decode_shard(refused_file.read_bytes(), refused_file, REJECTED)
    refused = pa.concat_tables([refused, _refused_rows(table.column(0), part.verdicts, schema)])
    table = _set_column(table, "patient_id", _patients(table, part.named_by, staging))
    table = _set_column(table, "split", pa.array(np.array(SPLITS)[part.splits], pa.string()))
    if len(part.addenda.rows):
        table = _with_addenda(table, part.addenda, staging)
    table = table.filter(pa.array(part.verdicts == Verdict.STANDS))
    found = {"labels": _publish_labels(part, table, run, staging)} if labelled and schema.name == IMAGES.name else {}
    return found | {
        "shard": write_shard(run, f"{schema.name}/{part.path}", schema, table).model_dump(),
        "rejected_shard": write_shard(run, f"rejected/{schema.name}-{part.path}", REJECTED, refused).model_dump(),
        "rejected": dict(rejected_rows(refused)),
        "synthetic": table["source"].to_pylist().count(PHANTOM),
        "splits": _counted(table["split"], schema.name),
        "facts": _facts(table) if schema.name == IMAGES.name else {},
    }


def _counted(column: pa.ChunkedArray, prefix: str) -> dict[str, int]:
    return {f"{prefix}_{entry['values']}": entry["counts"] for entry in pc.value_counts(column).to_pylist()}


def _facts(images: pa.Table) -> dict[str, int]:
    """Count views, who said so, and what is wrong with images."""
    said = images.filter(pc.is_valid(images["view_source"]))["view_source"]
    flags = pc.list_flatten(images["quality"])
    return _counted(images["view"], "view") | _counted(said, "view_from") | _counted(flags, "quality")


def _publish_labels(part: PublishTask, images: pa.Table, run: Location, staging: Location) -> dict[str, Any]:
    """Publish the labelled findings of the studies that have an image left."""
    file = staging / "labels" / part.path
    findings = decode_shard(file.read_bytes(), file, RESOLVED_FINDINGS)
    findings = findings.filter(pc.is_in(findings["study_id"], value_set=pc.unique(images["study_id"])))
    return write_shard(run, f"{RESOLVED_FINDINGS.name}/{part.path}", RESOLVED_FINDINGS, findings).model_dump()


def _refused_rows(ids: pa.ChunkedArray, verdicts: npt.NDArray[np.int8], schema: DatasetSchema) -> pa.Table:
    reasons = {Verdict.DUPLICATE: _DUPLICATE[schema.name], Verdict.SUPERSEDED: _SUPERSEDED}
    rows: list[dict[str, object]] = []
    for row in np.flatnonzero(np.isin(verdicts, list(reasons))).tolist():
        code, message = reasons[Verdict(verdicts[row])]
        rows.append({"id": ids[row].as_py(), "stage": "ingest", "code": code, "message": message})
    return REJECTED.from_rows(rows)


def _patients(table: pa.Table, named_by: Given, staging: Location) -> pa.Array:
    """Return each row's patient: its own, or the one whom the report of its study names."""
    patients, studies = table["patient_id"].to_pylist(), table["study_id"].to_pylist()
    for row, report in named_by.read(staging, ["study_id", "patient_id"]):
        if studies[row] == report["study_id"]:  # else their keys were equal by chance
            patients[row] = report["patient_id"]
    return pa.array(patients, pa.string())


def _set_column(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)


def _with_addenda(table: pa.Table, addenda: Given, staging: Location) -> pa.Table:
    """Append the text of addenda to their reports, with their sections."""
    texts, sections = table["text"].to_pylist(), table["sections"].to_pylist()
    for row, addendum in addenda.read(staging, ["text", "sections"]):
        shift = len(texts[row]) + 2
        texts[row] += "\n\n" + addendum["text"]
        sections[row] += [
            {"name": one["name"], "start": one["start"] + shift, "end": one["end"] + shift}
            for one in addendum["sections"]
        ]
    for name, values in (("text", texts), ("sections", sections)):
        table = _set_column(table, name, pa.array(values, REPORTS.columns.field(name).type))
    return table
