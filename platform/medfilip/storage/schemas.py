"""The contract between stages: every dataset, column by column, with its version.

A change to a schema raises its version; a reader refuses any other version with a clear error, since a silently
misread column is worse than a stopped job. All character spans are half-open ``[start, end)`` offsets in Unicode
code points.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.storage.diagnosis_fields import DIAGNOSED_IMAGE_FIELDS, DIAGNOSIS_FIELDS

_text = pa.string()
_texts = pa.list_(pa.string())

SECTION = pa.struct([("name", _text), ("start", pa.int32()), ("end", pa.int32())])
"""One section of a report: a span of ``reports.text``; ``name`` is one of `medfilip.reports.sections.SECTION_NAMES`."""

EVIDENCE = pa.struct([("slot", _text), ("start", pa.int32()), ("end", pa.int32())])
"""Where a slot of a finding stands in the text; ``slot`` is mention, certainty, severity, laterality, site, …"""

FINDING_SLOTS: list[tuple[str, pa.DataType]] = [
    ("category", _text),
    ("certainty", _text),
    ("hedge", _text),
    ("severity", _text),
    ("size", _text),
    ("size_mm", pa.float32()),
    ("count", pa.int16()),
    ("laterality", _text),
    ("sites", _texts),
    ("patterns", _texts),
    ("change", _text),
    ("chronicity", _text),
    ("position", _text),  # of a device: where its tip is, or "malpositioned"
]
"""What a finding says; a missing slot is null or empty."""

FINDING_FIELDS = [
    *FINDING_SLOTS,
    ("alignment", _text),
    ("evidence", pa.list_(EVIDENCE)),
    ("confidence", pa.float32()),  # calibrated probability that the finding is right; null if it was not estimated
    ("suggestion", _text),  # for a category the ontology does not know: the nearest one it does
]
"""Columns of a finding in a text, in the order of `medfilip.findings.finding.Finding`; a missing slot is null."""

FINDING = pa.struct(FINDING_FIELDS)

FINDING_CODES = pa.struct(
    [
        ("category", pa.int16()),
        ("certainty", pa.int8()),
        ("severity", pa.int8()),
        ("laterality", pa.int8()),
        ("sites", pa.list_(pa.int16())),
        ("text_ids", pa.list_(pa.int64())),
    ]
)
"""A finding as integers (`medfilip.findings.codes`) with the ids of its text variants in ``texts``."""


@dataclass(frozen=True)
class DatasetSchema:
    """Name, version, columns and row key of a dataset."""

    name: str
    version: int
    key: tuple[str, ...]
    columns: pa.Schema

    def arrow_schema(self) -> pa.Schema:
        """Return the Arrow schema with name and version in its metadata, as written to Parquet."""
        return self.columns.with_metadata(
            {b"medfilip.dataset": self.name.encode(), b"medfilip.schema_version": str(self.version).encode()}
        )

    def conform(self, table: pa.Table) -> pa.Table:
        """Order and cast the columns of ``table`` to this schema; a missing or extra column is an error."""
        missing = [name for name in self.columns.names if name not in table.column_names]
        extra = [name for name in table.column_names if name not in self.columns.names]
        if missing or extra:
            raise MedfilipError(
                ErrorCode.SCHEMA_MISMATCH,
                f"A table for dataset '{self.name}' (version {self.version}) lacks columns {missing} "
                f"and has unknown columns {extra}.",
                fix="Write exactly the columns of medfilip.storage.schemas.",
            )
        return table.select(self.columns.names).cast(self.arrow_schema())

    def empty(self) -> pa.Table:
        """Return a table of this schema without rows."""
        return self.arrow_schema().empty_table()

    def from_rows(self, rows: list[dict[str, object]]) -> pa.Table:
        """Build a table from row dictionaries; missing keys become null."""
        return pa.Table.from_pylist(rows, schema=self.arrow_schema())


REPORTS = DatasetSchema(
    "reports",
    1,
    ("report_id",),
    pa.schema(
        [
            ("report_id", _text),
            ("study_id", _text),
            ("patient_id", _text),
            ("text", _text),
            ("sections", pa.list_(SECTION)),
            ("source", _text),
            ("split", _text),
        ]
    ),
)

IMAGES = DatasetSchema(
    "images",
    2,
    ("image_id",),
    pa.schema(
        [
            ("image_id", _text),
            ("study_id", _text),
            ("patient_id", _text),
            ("view", _text),  # "frontal", "lateral" or "unknown"
            ("view_source", _text),  # who says so: "header", "table" or "pixels"; null if unknown
            ("view_position", _text),  # "PA", "AP", "LL", "RL" or "LATERAL"; null where nobody says
            ("quality", _texts),  # flags of `medfilip.imaging.quality`
            ("pixels", pa.binary()),  # PNG, 8 or 16 bit greyscale, MONOCHROME2
            ("height", pa.int32()),
            ("width", pa.int32()),
            ("bits", pa.int8()),
            ("spacing_mm", pa.float32()),  # row spacing of ``pixels``; null when the file does not say
            ("source_height", pa.int32()),  # of the decoded image, set upright
            ("source_width", pa.int32()),
            ("source_photometric", _text),
            ("source_transfer_syntax", _text),
            ("pixel_hash", _text),  # SHA-256 of the decoded pixels: finds duplicates whatever the container
            ("sex", _text),  # "F", "M" or "O"; null unless ingest kept characteristics
            ("age_years", pa.int16()),  # at most 90; null unless ingest kept characteristics
            ("source", _text),
            ("split", _text),
        ]
    ),
)

SENTENCES = DatasetSchema(
    "sentences",
    1,
    ("sentence_id",),
    pa.schema(
        [
            ("sentence_id", pa.int64()),
            ("text", _text),  # normal form: lower case, single spaces
            ("context", _text),  # the preceding sentence or heading, for context-bound sentences; else null
            ("section_group", _text),
            ("count", pa.int64()),
        ]
    ),
)

OCCURRENCES = DatasetSchema(
    "occurrences",
    1,
    ("report_id", "position"),
    pa.schema(
        [
            ("sentence_id", pa.int64()),
            ("report_id", _text),
            ("section", _text),
            ("start", pa.int32()),
            ("end", pa.int32()),
            ("position", pa.int32()),
        ]
    ),
)

UNGROUNDED = pa.struct([("mention", _text), ("category", _text), ("reason", _text)])
"""What of a model's reply the sentence does not carry, with the reason: a whole item (``mention_not_in_sentence``,
``empty_mention``) or one slot of an item that is a finding all the same (``laterality_not_in_sentence``, …)."""

SENTENCE_FINDINGS = DatasetSchema(
    "sentence_findings",
    2,
    ("sentence_id",),
    pa.schema(
        [
            ("sentence_id", pa.int64()),
            ("findings", pa.list_(FINDING)),  # evidence spans are relative to the sentence
            ("engine", _text),
            ("status", _text),  # "ok" or an ErrorCode
            ("doubts", _texts),  # why the engine may be wrong about this sentence (`medfilip.extraction.doubt`)
            ("ungrounded", pa.list_(UNGROUNDED)),
            ("input_tokens", pa.int32()),
            ("output_tokens", pa.int32()),
            ("cached_tokens", pa.int32()),
            ("raw_reply", _text),  # kept only when the reply could not be used
        ]
    ),
)

KNOWLEDGE_REPLIES = DatasetSchema(
    "knowledge_replies",
    1,
    ("sentence_id",),
    pa.schema(
        [
            ("sentence_id", pa.int64()),  # hash of the request, which goes to an engine the way a sentence does
            ("engine", _text),
            ("status", _text),  # "ok" or an ErrorCode
            ("reply", _text),  # the phrases that passed every check, as JSON (`medfilip.knowledge.drafts`)
            ("dropped", _texts),  # reasons of the phrases that did not
            ("input_tokens", pa.int32()),
            ("output_tokens", pa.int32()),
            ("cached_tokens", pa.int32()),
            ("raw_reply", _text),  # kept only when nothing of it is used
        ]
    ),
)

REVIEW_QUEUE = DatasetSchema(
    "review_queue",
    1,
    ("sentence_id",),
    pa.schema(
        [
            ("sentence_id", pa.int64()),
            ("reason", _text),  # why a model was asked: "doubt" or "audit"
            ("doubts", _texts),
            ("kinds", _texts),  # in what rules and model disagree: "category", "certainty", "side"
            ("rules", pa.list_(FINDING)),
            ("model", pa.list_(FINDING)),
            ("engine", _text),  # of the model
            ("count", pa.int64()),  # how often the sentence stands in the corpus: what to look at first
        ]
    ),
)

MENTIONS = DatasetSchema(
    "mentions",
    2,
    ("mention_id",),
    pa.schema(
        [
            ("mention_id", pa.int64()),
            ("report_id", _text),
            ("study_id", _text),
            ("sentence_id", pa.int64()),
            ("section", _text),
            *FINDING_FIELDS,  # evidence spans are relative to reports.text
            ("engine", _text),
        ]
    ),
)

RESOLVED_FINDINGS = DatasetSchema(
    "resolved_findings",
    2,
    ("finding_id",),
    pa.schema(
        [
            ("finding_id", pa.int64()),
            ("study_id", _text),
            ("report_id", _text),
            *FINDING_SLOTS,
            ("confidence", pa.float32()),
            ("mention_ids", pa.list_(pa.int64())),
            ("conflict", pa.bool_()),
        ]
    ),
)

DEIDENTIFIED = DatasetSchema(
    "deidentified",
    1,
    ("path",),
    pa.schema(
        [
            ("path", _text),  # below the run
            ("patient_id", _text),
            ("study_uid", _text),
            ("sop_uid", _text),
            ("bytes", pa.int64()),
            ("sha256", _text),
        ]
    ),
)

TEXTS = DatasetSchema(
    "texts",
    1,
    ("text_id",),
    pa.schema([("text_id", pa.int64()), ("text", _text), ("category", _text), ("certainty", _text)]),
)

PAIRS = DatasetSchema(
    "pairs",
    1,
    ("image_id",),
    pa.schema(
        [
            ("image_id", _text),
            ("study_id", _text),
            ("patient_id", _text),
            ("view", _text),
            ("split", _text),
            ("image_shard", pa.int32()),  # index into the shard list of the images dataset in the input manifest
            ("image_row", pa.int32()),
            ("findings", pa.list_(FINDING_CODES)),
        ]
    ),
)

DIAGNOSES = DatasetSchema("diagnoses", 1, ("study_id", "label"), pa.schema(DIAGNOSIS_FIELDS))

DIAGNOSED_IMAGES = DatasetSchema("diagnosed_images", 1, ("image_id",), pa.schema(DIAGNOSED_IMAGE_FIELDS))

REJECTED = DatasetSchema(
    "rejected",
    1,
    ("id", "stage"),
    pa.schema([("id", _text), ("stage", _text), ("code", _text), ("message", _text)]),
)

DATASETS: dict[str, DatasetSchema] = {
    schema.name: schema
    for schema in (
        REPORTS,
        IMAGES,
        DEIDENTIFIED,
        SENTENCES,
        OCCURRENCES,
        SENTENCE_FINDINGS,
        KNOWLEDGE_REPLIES,
        REVIEW_QUEUE,
        MENTIONS,
        RESOLVED_FINDINGS,
        TEXTS,
        PAIRS,
        DIAGNOSES,
        DIAGNOSED_IMAGES,
        REJECTED,
    )
}
