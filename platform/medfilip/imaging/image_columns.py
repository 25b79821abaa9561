"""Which column of a table of images is which: a mapping that the user may give, completed from usual names."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import Field

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import Settings
from medfilip.findings.labels import is_no_finding, label_category, plain_label
from medfilip.findings.ontology import Ontology

NONE = "none"
"""Given as the name of a column: the table does not have it."""

_KNOWN: dict[str, tuple[str, ...]] = {
    "path": ("path", "image_path", "file_path", "filepath", "relative_path", "file", "filename", "file_name", "image",
             "image_index", "image_name", "imageid", "image_id", "dicom_id", "sop_instance_uid", "sopinstanceuid",
             "path_to_image", "imagepath"),
    "patient_id": ("patient_id", "patientid", "subject_id", "subjectid", "patient", "mrn", "pid",
                   "deid_patient_id"),
    "study_id": ("study_id", "studyid", "study_instance_uid", "studyinstanceuid", "study", "uid", "accession",
                 "accession_number", "accessionnumber"),
    "view": ("view_position", "viewposition", "view", "projection", "ap_pa", "frontal_lateral", "image_views",
             "viewcodesequence_codemeaning"),
    "split": ("split", "subset", "fold"),
    "sex": ("sex", "patient_sex", "gender", "patient_gender", "patientsex"),
    "age": ("age", "patient_age", "age_years", "patientage"),
    "source": ("source", "dataset"),
    "text": ("report", "report_text", "text", "full_report"),
    "labels": ("finding_labels", "labels", "label", "findings_labels", "class_name"),
}  # fmt: skip


class ImageColumns(Settings):
    """Names of an image table's columns; an empty one is looked for by the names it usually has."""

    path: str | None = Field(None, description="column with the file's path or name; found: path, image_path, file …")
    patient_id: str | None = Field(None, description="column with the patient's id; found: patient_id, subject_id …")
    study_id: str | None = Field(None, description="column with the study's id; without one the header says, if any")
    view: str | None = Field(None, description="column with PA, AP, LL, frontal, lateral …; found: view_position, view")
    split: str | None = Field(None, description="column with train, validation or test; found: split")
    sex: str | None = Field(None, description="column with the patient's sex; found: sex, gender")
    age: str | None = Field(None, description="column with the patient's age in years; found: age, patient_age")
    source: str | None = Field(None, description="column with the collection an image comes from; found: source")
    text: str | None = Field(None, description="column with the study's report; found: report, text")
    labels: str | None = Field(None, description="column with a list of labels, or of labels with | between")
    label_columns: tuple[str, ...] = Field(
        (), description="columns of one label each (1, 0, -1 or empty); found: those that name a finding, and between"
    )


def resolve_image_columns(
    wanted: ImageColumns, found: Sequence[str], place: str, ontology: Ontology
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return field → column of a table, and the columns that hold one label each.

    Raises
    ------
    MedfilipError
        ``column_missing``, with the columns that were found, the field that is wanted and the setting that helps.
    """
    given = {name: value for name, value in wanted.model_dump(exclude={"label_columns"}).items() if value is not None}
    for field, name in given.items():
        if name not in found and name.lower() != NONE:
            raise _missing(place, found, f"the column '{name}'", f"image_columns.{field}=COLUMN")
    for name in wanted.label_columns:
        if name not in found:
            raise _missing(place, found, f"the column '{name}'", "image_columns.label_columns=[COLUMN,…]")
    plain = {_plain(name): name for name in reversed(found)}
    columns = {field: name for field, name in given.items() if name.lower() != NONE}
    for field, names in _KNOWN.items():
        name = next((plain[known] for known in names if known in plain), None)
        if field not in given and name is not None and name not in columns.values():
            columns[field] = name
    if "path" not in columns:
        raise _missing(place, found, "a column for path", "image_columns.path=COLUMN")
    labels = wanted.label_columns or tuple(
        name for name in found if name not in columns.values() and _names_a_finding(name, ontology)
    )
    return columns, labels


def view_columns(found: Sequence[str]) -> list[str]:
    """Return all columns that usually name a view, the most exact first: some are empty for lateral images."""
    plain = {_plain(name): name for name in reversed(found)}
    return [plain[known] for known in _KNOWN["view"] if known in plain]


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name.strip().lower()).strip("_")


def _names_a_finding(name: str, ontology: Ontology) -> bool:
    if not plain_label(name):
        return False
    known = is_no_finding(name) or plain_label(name) == "support devices"
    return known or not label_category(name, ontology).startswith("other:")


def _missing(place: str, found: Sequence[str], what: str, setting: str) -> MedfilipError:
    names = ", ".join(found[:30]) + (" …" if len(found) > 30 else "")
    return MedfilipError(
        ErrorCode.COLUMN_MISSING,
        f"{place} lacks {what}; it has the columns {names}.",
        fix=f"Say which column it is: {setting}.",
    )
