"""CheXpert: a column a label, views and patients from paths such as ``valid/patient64541/study1/view1_frontal.jpg``.

Frontal images are judged one by one; lateral ones are counted and left out. A table of studies (``Study``) holds for
each frontal image of the study.
"""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.protocols.folder import DataFolder
from medfilip.evaluation.protocols.listing import Listing
from medfilip.evaluation.protocols.protocol import Origin

_VIEW = re.compile(r"(?P<study>(?P<patient>patient\d+)/study\d+)/(?P<file>view\d+_(?P<view>frontal|lateral)\.jpg)$")
_STUDY = re.compile(r"(?P<study>(?P<patient>patient\d+)/study\d+)/?$")
_FACTS = {"Path", "Study", "Sex", "Age", "Frontal/Lateral", "AP/PA"}
_STATES = {"1": "present", "0": "absent", "-1": "uncertain"}
_ROLES: tuple[Origin, ...] = ("train", "validation", "test")


def read(folder: DataFolder, listing: Listing) -> None:
    """Fill a listing; see the module's text."""
    images = folder.images(_key)
    views: dict[str, list[str]] = {}
    for key in images.keys:
        views.setdefault(key.rsplit("/", 1)[0], []).append(key)
    for origin in _ROLES:
        table = folder.table(origin, ())
        if table is None:
            continue
        place = next((name for name in ("Path", "Study") if name in table.column_names), None)
        if place is None:
            raise MedfilipError(
                ErrorCode.COLUMN_MISSING,
                f"The table of the part '{origin}' has neither a column 'Path' nor a column 'Study'.",
                fix="Give the table as CheXpert ships it.",
            )
        labels = [name for name in table.column_names if name not in _FACTS and not name.startswith("column ")]
        said = _said(table, labels, origin)
        facts = zip(*(folder.values(table, name) for name in ("AP/PA", "Sex", "Age")), strict=True)
        for path, states, (beam, sex, age) in zip(table[place].to_pylist(), said, facts, strict=True):
            match = (_VIEW if place == "Path" else _STUDY).search(path or "")
            if match is None:
                listing.lacks["rows_without_patient_in_path"] += 1
                continue
            shown = [match[0]] if place == "Path" else sorted(views.get(match["study"], [f"{match['study']}/-"]))
            for key in shown:
                if key.endswith("_lateral.jpg"):
                    listing.leave_out("lateral", match["patient"], origin)
                else:
                    about = {"view": beam, "sex": sex, "age": age}
                    listing.add(key, match["patient"], origin, images.get(key), **about, **states)


def _key(path: str) -> str | None:
    match = _VIEW.search(path)
    return match[0] if match else None


def _said(table: pa.Table, labels: list[str], origin: str) -> list[dict[str, Any]]:
    """Return for each row the labels that are present, absent and uncertain."""
    rows: list[dict[str, Any]] = [{"present": [], "absent": [], "uncertain": []} for _ in range(table.num_rows)]
    for name in labels:
        for row, value in zip(rows, table[name].to_pylist(), strict=True):
            if value is None:
                continue
            if value not in _STATES:
                raise MedfilipError(
                    ErrorCode.SCHEMA_MISMATCH,
                    f"The column '{name}' of the part '{origin}' has values other than 1, 0, -1 and empty.",
                    fix="Give the table as CheXpert ships it.",
                )
            row[_STATES[value]].append(name)
    return rows
