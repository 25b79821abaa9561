"""Ingest: raw reports and images → `reports`, `images` and `rejected`, pseudonymised, checked and split by patient.

Every part of the input is staged by a worker on its own; then one look over ids, text and pixel hashes (never over
texts or pixels) draws the splits and finds duplicates; then each staged part becomes a published shard.
"""

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
from medfilip.core.fingerprint import fingerprint, sha256_bytes
from medfilip.core.ids import pseudonym
from medfilip.core.secrets import project_key
from medfilip.core.settings import Settings
from medfilip.imaging.limits import ImageLimits
from medfilip.reports.columns import Columns
from medfilip.reports.corpora import CorpusKind, CorpusPart, corpus_fingerprint, plan_corpus
from medfilip.reports.report import Doubt
from medfilip.reports.splits import SPLITS, SplitNumbers
from medfilip.storage.location import Location
from medfilip.storage.manifest import Shard
from medfilip.storage.run import Run, open_run
from medfilip.storage.schemas import IMAGES, REJECTED, REPORTS, DatasetSchema
from medfilip.storage.shards import decode_shard, write_shard
from pipelines.images import PHANTOM, ImageFiles, ingest_images, list_images, plan_images, rejected_rows
from pipelines.job import JobSettings, Outcome, job_spec
from pipelines.look_over import Look, Numbers, Pairs, StagedPart, Verdict, look_over
from pipelines.reports import ingest_reports
from pipelines.runtime import map_parts
from serve.cluster import ray_session


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


class IngestSettings(JobSettings):
    """Settings of ``medfilip ingest``."""

    reports: str | None = Field(
        None, description="corpus of reports: a table (.parquet, .csv, .tsv, .jsonl, also .gz) or a folder of them, "
        "the tree of MIMIC-CXR, or a folder of .xml (Open-I) or .txt files",
    )  # fmt: skip
    images: str | None = Field(None, description="folder of DICOM, PNG and JPEG files, read with all its subfolders")
    kind: CorpusKind = Field("auto", description="shape of the corpus: auto, table, mimic, openi or text")
    columns: Columns = Field(Columns(), description="names of a table's columns; looked for where not given")
    accept: tuple[Doubt, ...] = Field(
        (), description="doubts that shall not refuse a report: language_unsupported, not_chest, not_radiograph"
    )
    keep_report_ids: bool = Field(False, description="keep report ids readable (public, de-identified corpora only)")
    exclude_ids: str | None = Field(None, description="file with one patient, study or report id a line to leave out")
    store_size: int = Field(1024, ge=64, le=4096, description="long side of stored images, in pixels")
    split: SplitShares = Field(SplitShares(), description="share of each split")
    limits: ImageLimits = Field(ImageLimits(), description="bounds on image files, checked before decoding")

    @model_validator(mode="after")
    def _need_an_input(self) -> IngestSettings:
        if not self.reports and not self.images:
            raise ValueError("give reports=FOLDER, images=FOLDER or both")
        return self


SETTINGS = IngestSettings


def run(settings: IngestSettings, *, new_run: bool = False) -> Outcome:
    """Ingest a corpus; see the module's text."""
    corpus = _plan_reports(settings)
    folder = Location.parse(settings.images) if settings.images else None
    files = list_images(folder) if folder else ImageFiles([], [], 0)
    excluded = _read_excluded(settings.exclude_ids)
    key = project_key()
    spec = job_spec(
        "ingest",
        # Where the input lies does not matter; what it holds is in the fingerprints of the inputs.
        {name: value for name, value in settings.semantic().items() if name not in ("reports", "images")}
        | {"exclude_ids": sorted(sha256_bytes(item.encode()) for item in excluded)},
        inputs=_input_fingerprints(corpus, files),
        # Another key gives other pseudonyms: that is another result.
        versions={"project_key": pseudonym(key, "check", "project")},
    )
    with open_run(Location.parse(settings.root), spec, new_run=new_run) as ingest:
        if ingest.manifest is not None:
            return _outcome(ingest, already_finished=True)
        with ray_session(settings.ray, settings.ray.address):
            with ingest.stage("reports"):
                stage_reports = partial(
                    ingest_reports,
                    staging=ingest.staging,
                    key=key,
                    keep_ids=settings.keep_report_ids,
                    accept=frozenset(settings.accept),
                    excluded=frozenset(excluded),
                    synthetic=_is_phantom(settings.reports),
                )
                reports = map_parts(ingest.staging, "reports", stage_reports, list(enumerate(corpus)))
            with ingest.stage("images"):
                stage_images = partial(
                    ingest_images,
                    staging=ingest.staging,
                    key=key,
                    limits=settings.limits,
                    store_size=settings.store_size,
                    excluded=frozenset(excluded),
                    synthetic=_is_phantom(settings.images),
                )
                images = map_parts(
                    ingest.staging, "images", stage_images, plan_images(folder, files.names) if folder else []
                )
            with ingest.stage("publish"):
                _publish(ingest, reports, images, settings.split, files.others)
    return _outcome(ingest)


def _plan_reports(settings: IngestSettings) -> list[CorpusPart]:
    if not settings.reports:
        return []
    return plan_corpus(Location.parse(settings.reports), settings.kind, settings.columns)


def _outcome(ingest: Run, *, already_finished: bool = False) -> Outcome:
    return Outcome.of(ingest, f"medfilip extract reports={ingest.location}", already_finished=already_finished)


def _is_phantom(corpus: str | None) -> bool:
    """Whether a corpus, or the one an image folder belongs to, says that it is synthetic."""
    if corpus is None:
        return False
    folder = Location.parse(corpus)
    return any((place / "phantom.json").exists() for place in (folder, folder.parent) if place.is_dir())


def _read_excluded(file: str | None) -> set[str]:
    if file is None:
        return set()
    lines = Location.parse(file).read_bytes().decode().splitlines()
    return {line.strip() for line in lines if line.strip()}


def _input_fingerprints(corpus: Sequence[CorpusPart], files: ImageFiles) -> dict[str, str]:
    inputs: dict[str, str] = {}
    if corpus:
        inputs["reports"] = corpus_fingerprint(corpus)
    if files.names:
        # From the listing only: hashing terabytes of pixels would cost as much as ingesting them.
        inputs["images"] = fingerprint([[name, *stamp] for name, stamp in zip(files.names, files.stamps, strict=True)])
    return inputs


def _publish(
    ingest: Run,
    reports: list[dict[str, Any]],
    images: list[dict[str, Any]],
    shares: SplitShares,
    other_files: int,
) -> None:
    pieces = {REPORTS: [piece for part in reports for piece in part["pieces"]], IMAGES: images}
    tasks = plan_publishing(ingest.staging, pieces, shares)
    counts: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    shards: dict[str, list[Shard]] = {"reports": [], "images": [], "rejected": []}
    for schema, staged in tasks.items():
        name = schema.name
        publish = partial(_publish_part, run=ingest.location, staging=ingest.staging, schema=schema)
        for record in map_parts(ingest.staging, f"publish_{name}", publish, staged):
            shards[name].append(Shard(**record["shard"]))
            shards["rejected"].append(Shard(**record["rejected_shard"]))
            counts.update({name: record["shard"]["rows"]} | record["splits"])
            rejected.update(record["rejected"])
            counts[f"synthetic_{name}"] += record["synthetic"]
        merged = sum(int((part.verdicts == Verdict.MERGED).sum()) for part in staged)
        counts.update({"addenda_merged": merged} if merged else {})
    if not any(shard.rows for name in ("reports", "images") for shard in shards[name]):
        raise MedfilipError(
            ErrorCode.INPUT_EMPTY,
            f"Nothing could be ingested; refused: {dict(rejected)}.",
            fix="Check that 'reports' and 'images' point at what they should.",
        )
    counts["files_of_other_kinds"] = other_files
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
) -> dict[DatasetSchema, list[PublishTask]]:
    """Look over all parts, and return what workers need to publish them."""
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
    return {schema: found for schema, found in ((REPORTS, tasks[:cut]), (IMAGES, tasks[cut:])) if found}


_REFUSED_BECAUSE = {
    Verdict.DUPLICATE: "An earlier row has the same id, or the same content in the same study.",
    Verdict.SUPERSEDED: "A corrected, final or later report of the same study or id stands in its place.",
}


# By name: in a worker the schema is a copy.
_DUPLICATE_OF = {REPORTS.name: ErrorCode.REPORT_DUPLICATE, IMAGES.name: ErrorCode.IMAGE_DUPLICATE}


def _publish_part(part: PublishTask, *, run: Location, staging: Location, schema: DatasetSchema) -> dict[str, Any]:
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
    return {
        "shard": write_shard(run, f"{schema.name}/{part.path}", schema, table).model_dump(),
        "rejected_shard": write_shard(run, f"rejected/{schema.name}-{part.path}", REJECTED, refused).model_dump(),
        "rejected": dict(rejected_rows(refused)),
        "synthetic": table["source"].to_pylist().count(PHANTOM),
        "splits": {
            f"{schema.name}_{entry['values']}": entry["counts"] for entry in pc.value_counts(table["split"]).to_pylist()
        },
    }


def _refused_rows(ids: pa.ChunkedArray, verdicts: npt.NDArray[np.int8], schema: DatasetSchema) -> pa.Table:
    codes = {
        Verdict.DUPLICATE: _DUPLICATE_OF[schema.name],
        Verdict.SUPERSEDED: ErrorCode.SUPERSEDED,
    }
    rows: list[dict[str, object]] = []
    for row in np.flatnonzero(np.isin(verdicts, list(codes))).tolist():
        verdict = Verdict(verdicts[row])
        rows.append(
            {"id": ids[row].as_py(), "stage": "ingest", "code": codes[verdict], "message": _REFUSED_BECAUSE[verdict]}
        )
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
