"""PadChest: one table with labels as a Python list in a cell, frontal and lateral images, two kinds of annotators.

Taken are frontal images whose report a physician labelled. The list is parsed, never evaluated.
"""

from __future__ import annotations

import re

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.protocols.folder import DataFolder
from medfilip.evaluation.protocols.listing import Listing

_COLUMNS = ("ImageID", "PatientID", "Labels", "MethodLabel", "Projection")
_VIEWS = {"PA": "PA", "AP": "AP", "AP_horizontal": "AP"}
_LATERAL = "L"
_PHYSICIAN = "Physician"
_NOTHING_SAID = {"exclude": "labelled_exclude", "unchanged": "labelled_unchanged"}
_ITEM = r"(?:'[^'\\]*'|\"[^\"\\]*\")"
_LIST = re.compile(rf"\[\s*(?:{_ITEM}(?:\s*,\s*{_ITEM})*\s*,?)?\s*\]")
_ITEMS = re.compile(_ITEM)


def read(folder: DataFolder, listing: Listing) -> None:
    """Fill a listing; see the module's text."""
    table = folder.needed("labels", _COLUMNS)
    images = folder.images()
    columns = (table[name].to_pylist() for name in _COLUMNS)
    for number, (name, patient, text, method, projection) in enumerate(zip(*columns, strict=True), start=2):
        if name is None or patient is None:
            listing.lacks["rows_without_name_or_patient"] += 1
            continue
        labels = parse_labels(text) if text is not None else []
        if labels is None:
            raise MedfilipError(
                ErrorCode.SCHEMA_MISMATCH,
                f"The labels in row {number} of the table are not a list of quoted names.",
                fix="Give the table as PadChest ships it.",
            )
        reason = _left_out(labels, method, projection)
        if reason is not None:
            listing.leave_out(reason, patient, "all")
        else:
            listing.add(name, patient, "all", images.get(name), present=labels, view=_VIEWS[projection])


def parse_labels(text: str) -> list[str] | None:
    """Return the names in ``['a', 'b ']``, stripped, without empty ones; ``None`` for anything else."""
    if not _LIST.fullmatch(text.strip()):
        return None
    return [name for name in (item[1:-1].strip() for item in _ITEMS.findall(text)) if name]


def _left_out(labels: list[str], method: str | None, projection: str | None) -> str | None:
    """Return why an image is not taken, ``None`` if it is."""
    if method != _PHYSICIAN:
        return "not_labelled_by_a_physician"
    if projection == _LATERAL:
        return "lateral"
    if projection not in _VIEWS:
        return "not_frontal"
    if not labels:
        return "no_labels"
    return next((_NOTHING_SAID[name.lower()] for name in labels if name.lower() in _NOTHING_SAID), None)
