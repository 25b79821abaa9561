"""Which column of a table is which: a mapping that the user may give, completed from the names tables usually have."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

from pydantic import Field

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import Settings

NONE = "none"
"""Given as the name of a column: the table does not have it."""

SECTION_COLUMNS = ("indication", "technique", "comparison", "findings", "impression")
_KNOWN: dict[str, tuple[str, ...]] = {
    "report_id": ("report_id", "reportid", "accession_number", "accession", "accession_no", "accessionnumber",
                  "exam_id",
                  "document_id", "note_id", "report_number", "report_no", "uid", "id"),
    "study_id": ("study_id", "studyid", "study_instance_uid", "studyinstanceuid", "study_uid"),
    "patient_id": ("patient_id", "patientid", "subject_id", "subjectid", "mrn", "patient", "person_id", "pid",
                   "patient_mrn", "patient_number"),
    "text": ("text", "report", "report_text", "reporttext", "full_text", "fulltext", "full_report", "report_body",
             "report_content", "radiology_report", "narrative", "note_text", "body", "content"),
    "indication": ("indication", "history", "clinical_history", "clinical_information", "clinical_indication"),
    "technique": ("technique",),
    "comparison": ("comparison", "comparisons"),
    "findings": ("findings", "finding", "observations"),
    "impression": ("impression", "impressions", "conclusion", "conclusions", "opinion"),
    "split": ("split",),
    "title": ("title", "study_description", "studydescription", "exam_description", "procedure_description",
              "exam_name",
              "procedure_name", "performedprocedurestepdescription"),
}  # fmt: skip
_MAX_NAME = 40
_MAX_NAMES = 30


class Columns(Settings):
    """Names of a table's columns; an empty one is looked for by the names it usually has."""

    report_id: str | None = Field(
        None, description="column with the report's id; found: report_id, accession, uid, id …"
    )
    study_id: str | None = Field(None, description="column with the study's id; without one a report is its own study")
    patient_id: str | None = Field(None, description="column with the patient's id; none: the table does not say")
    text: str | None = Field(None, description="column with the whole report; found: text, report, report_text, body …")
    indication: str | None = Field(None, description="column with the section, where sections have columns")
    technique: str | None = Field(None, description="column with the section, where sections have columns")
    comparison: str | None = Field(None, description="column with the section, where sections have columns")
    findings: str | None = Field(None, description="column with the section, where sections have columns")
    impression: str | None = Field(None, description="column with the section, where sections have columns")
    split: str | None = Field(None, description="column with train, validation or test; found: split")
    title: str | None = Field(None, description="column with the examination's name; found: study_description …")
    issued: str | None = Field(None, description="column with the time of issue; the latest resend of a report wins")


def resolve_columns(wanted: Columns, found: Sequence[str], place: str) -> dict[str, str]:
    """Return field → column of a table.

    Raises
    ------
    MedfilipError
        ``column_missing``, with the columns that were found, the field that is wanted and the setting that helps.
    """
    given = {field: name for field, name in wanted.model_dump().items() if name is not None}
    for field, name in given.items():
        if name not in found and name.lower() != NONE:
            raise _missing(place, found, f"the column '{name}' that columns.{field} names", f"columns.{field}=COLUMN")
    plain = {re.sub(r"\W+", "_", name.strip().lower()).strip("_"): name for name in reversed(found)}
    columns: dict[str, str] = {}
    for field in Columns.model_fields:
        if field in given:
            if given[field].lower() != NONE:
                columns[field] = given[field]
            continue
        name = next((plain[known] for known in _KNOWN.get(field, ()) if known in plain), None)
        if name is not None and name not in given.values():
            columns[field] = name
    if "text" in columns and "text" not in given and any(section in given for section in SECTION_COLUMNS):
        del columns["text"]
    if "report_id" not in columns and "study_id" in columns:
        columns["report_id"] = columns["study_id"]
    lacking = [field for field in ("report_id", "patient_id") if field not in columns]
    if given.get("patient_id", "").lower() == NONE:
        lacking.remove("patient_id")
    if not {"text", "findings", "impression"} & columns.keys():
        lacking.append("text (or findings and impression)")
    if lacking:
        fix = " ".join(f"columns.{field.split()[0]}=COLUMN" for field in lacking)
        fix += ", or columns.patient_id=none if it does not say" if "patient_id" in lacking else ""
        raise _missing(place, found, f"columns for {', '.join(lacking)}", fix)
    return columns


def read_row(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """Return field → value of a row: identifiers as text, everything else as it is; blanks are ``None``."""
    values = {field: row.get(name) for field, name in columns.items()}
    return {field: None if _blank(value) else value for field, value in values.items()}


def identifier(value: Any) -> str | None:
    """Return an identifier as text; a number that a missing neighbour turned into ``123.0`` is ``123`` again."""
    if value is None:
        return None
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return re.sub(r"^(-?\d+)\.0$", r"\1", str(value).strip()) or None


def moment(value: Any) -> float | None:
    """Return a time of issue as a number; ``None`` if it is neither a number nor an ISO 8601 date or time."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            try:
                value = datetime.fromisoformat(value.strip())
            except ValueError:
                return None
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)  # noqa: DTZ001 - given its zone below
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _blank(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value)) or value in ("", b"")


def _missing(place: str, found: Sequence[str], what: str, setting: str) -> MedfilipError:
    if any(len(name) > _MAX_NAME for name in found):
        # Without a line of names the first report stands there, and must not be told.
        names = f"{len(found)} columns, whose names are too long to be names"
    else:
        names = "the columns " + ", ".join(found[:_MAX_NAMES]) + (" …" if len(found) > _MAX_NAMES else "")
    return MedfilipError(
        ErrorCode.COLUMN_MISSING,
        f"{place} lacks {what}; it has {names}.",
        fix=f"Say which column it is: {setting}. Or set 'kind' to the corpus it is.",
    )
