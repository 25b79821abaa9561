"""Corpora of images: a folder or bucket prefix, with what its tables say, → a listing that workers read on their own.

Known shapes are a *folder* of files that say themselves whose they are (DICOM), the tree of *mimic* (MIMIC-CXR and
MIMIC-CXR-JPG, Johnson et al., 2019), *nih* (ChestX-ray14, Wang et al., CVPR 2017), *openi* (the Indiana collection,
Demner-Fushman et al., JAMIA 2016) and a *table* with any names of columns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.ids import hash64
from medfilip.findings.labels import UNSAID, LabelSet
from medfilip.findings.ontology import Ontology
from medfilip.imaging.image_columns import ImageColumns, resolve_image_columns, view_columns
from medfilip.imaging.image_tables import match_files, parquet_columns, read_table
from medfilip.imaging.label_states import holds_states, list_states, one_hot_states
from medfilip.imaging.listing import (
    MISSING_BYTES,
    ImageListing,
    ReportTable,
    list_files,
    listing_table,
    one_row_a_file,
)
from medfilip.reports.columns import NONE, Columns
from medfilip.reports.report import SPLIT_NAMES
from medfilip.reports.tables import table_format
from medfilip.storage.location import Location

ImageKind = Literal["auto", "folder", "mimic", "nih", "openi", "table"]

_MIMIC_NAME = r"(?:^|/)(?:p\d{2}/)?p(?P<patient>\d{8})/s(?P<study>\d{8})/(?P<image>[^/]+)\.[A-Za-z]+$"
_OPENI_NAME = r"(?:^|/)(?P<study>CXR\d+)_[^/]*\.(?i:png|jpe?g|dcm)$"
_CHEXPERT_NAME = r"(?:^|/)(?P<study>(?P<patient>patient\d+)/study\d+)/[^/]+\.(?i:png|jpe?g)$"
_NIH_NAME = r"(?:^|/)\d{8}_\d{3}\.[A-Za-z]+$"
_MIMIC_TABLE = re.compile(r"^mimic-cxr-.*(?P<what>metadata|split|chexpert|negbio)\.csv(?:\.gz)?$")
_NIH_TABLE = re.compile(r"^Data_Entry_2017.*\.csv(?:\.gz)?$", re.IGNORECASE)
_VISIT = "patient/visit"
_OPENI_IDS, _OPENI_VIEWS = "image_ids", "image_views"
_VALIDATION_ONE_IN = 8
"""Share of ChestX-ray14's train_val list that becomes validation: with it about 70 / 10 / 20."""


@dataclass(frozen=True)
class ImageCorpus:
    """Where images lie and how to read what is known of them.

    Attributes
    ----------
    folder
        Folder or bucket prefix of the files.
    kind
        Shape of the corpus.
    table
        A table about the images; found beside them for *mimic* and *nih*.
    columns
        Names of the table's columns.
    unlisted
        State of a label that a list of labels does not name (`medfilip.findings.labels`).
    """

    folder: Location
    kind: ImageKind = "auto"
    table: Location | None = None
    columns: ImageColumns = field(default_factory=ImageColumns)
    unlisted: str = UNSAID


def list_images(corpus: ImageCorpus, ontology: Ontology) -> ImageListing:
    """List a corpus, and join what its tables say to its files.

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND``, ``INPUT_EMPTY``, ``COLUMN_MISSING``, ``SHARD_CORRUPT`` or ``CONFIG_INVALID``.
    """
    if corpus.table is None and table_format(corpus.folder.name) and not corpus.folder.is_dir():
        corpus = replace(corpus, folder=corpus.folder.parent, table=corpus.folder)
    files, others = list_files(corpus.folder)
    kind = corpus.kind if corpus.kind != "auto" else _kind_of(corpus, files)
    listing = _LISTERS[kind](corpus, files, ontology)
    ordered = listing.rows.sort_by([("patient_id", "ascending"), ("study_id", "ascending"), ("name", "ascending")])
    return replace(listing, kind=kind, rows=ordered, others=others)


def _kind_of(corpus: ImageCorpus, files: pa.Table) -> ImageKind:
    names = files["name"]
    in_mimic = _mostly(names, _MIMIC_NAME)
    if corpus.table is not None:
        if in_mimic and _MIMIC_TABLE.match(corpus.table.name):
            return "mimic"
        return "openi" if _is_openi_table(corpus.table) else "nih" if _NIH_TABLE.match(corpus.table.name) else "table"
    if in_mimic:
        return "mimic"
    if _beside(corpus.folder, _NIH_TABLE, levels=3 if _mostly(names, _NIH_NAME) else 2):
        return "nih"
    return "openi" if _mostly(names, _OPENI_NAME) else "folder"


def _mostly(names: pa.ChunkedArray, pattern: str) -> bool:
    head = names.slice(0, 1000)
    matches = pc.match_substring_regex(head, re.sub(r"\?P<\w+>", "", pattern))
    return bool(2 * pc.sum(matches).as_py() > len(head))


def _list_folder(corpus: ImageCorpus, files: pa.Table, ontology: Ontology) -> ImageListing:
    known = _ids_of_paths(files["name"].combine_chunks())
    return ImageListing(corpus.folder, "folder", _rows(files, **known))


def _ids_of_paths(names: pa.Array) -> dict[str, pa.Array]:
    """Return the ids of patients and studies that paths spell out, as those of CheXpert and MIMIC-CXR do.

    CheXpert's are those of PNG and JPEG files only, which have no header that says it: a DICOM file's study is that of
    its header, by which reports find it.
    """
    parts = [pc.extract_regex(names, pattern) for pattern in (_CHEXPERT_NAME, _MIMIC_NAME)]
    return {
        f"{what}_id": pc.coalesce(*(pc.struct_field(part, what) for part in parts)) for what in ("patient", "study")
    }


def _rows(files: pa.Table, **known: pa.Array | pa.ChunkedArray | None) -> pa.Table:
    columns = {name: files[name] for name in files.column_names}
    return listing_table({**columns, **known}, files.num_rows)


def _list_mimic(corpus: ImageCorpus, files: pa.Table, ontology: Ontology) -> ImageListing:
    if corpus.table is not None and not _MIMIC_TABLE.match(corpus.table.name):
        return _list_table(corpus, files, ontology)
    parts = pc.extract_regex(files["name"].combine_chunks(), _MIMIC_NAME)
    study, image = pc.struct_field(parts, "study"), pc.struct_field(parts, "image")
    found: dict[str, Location] = {}
    for file, match in _beside(corpus.folder, _MIMIC_TABLE, levels=3):
        found.setdefault(match["what"], file)  # the nearest
    known: dict[str, pa.Array | None] = {"patient_id": pc.struct_field(parts, "patient"), "study_id": study}
    if "metadata" in found:
        known["view"] = _looked_up(read_table(found["metadata"]), found["metadata"], "dicom_id", "ViewPosition", image)
    if "split" in found:
        known["split"] = _looked_up(read_table(found["split"]), found["split"], "dicom_id", "split", image)
    labels: tuple[str, ...] = ()
    labelled = found.get("chexpert", found.get("negbio"))
    if labelled is not None:
        table = read_table(labelled)
        labels = tuple(name for name in table.column_names if name not in ("subject_id", "study_id"))
        states = one_hot_states(table, labels, str(labelled))
        known["labels"] = _take(states, _place(table, labelled, "study_id", study))
    return ImageListing(corpus.folder, "mimic", _rows(files, **known), labels)


def _list_nih(corpus: ImageCorpus, files: pa.Table, ontology: Ontology) -> ImageListing:
    places = _beside(corpus.folder, _NIH_TABLE, levels=3)
    file = corpus.table or (places[0][0] if places else None)
    if file is None:
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND,
            f"There is no Data_Entry_2017.csv in {corpus.folder} or beside it.",
            fix="Say where it is: image_table=FILE.",
        )
    table = read_table(file)
    usual = {"path": "Image Index", "patient_id": "Patient ID", "labels": "Finding Labels"}
    if {"Patient ID", "Follow-up #"} <= set(table.column_names):
        # A visit is a study: the collection numbers the visits of a patient and often has one image of each.
        visits = pc.binary_join_element_wise(table["Patient ID"], table["Follow-up #"], "/")
        table, usual = table.append_column(_VISIT, visits), usual | {"study_id": _VISIT}
    columns = ImageColumns.model_validate(usual | corpus.columns.model_dump(exclude_defaults=True))
    listing = _listed_by(corpus, files, table, file, columns, ontology)
    rows = listing.rows
    rows = _set(rows, "split", _nih_splits(corpus.folder, rows))
    return replace(listing, kind="nih", rows=rows)


def _nih_splits(folder: Location, rows: pa.Table) -> pa.Array:
    """Return the official split of each image; a share of train_val's patients is set aside for validation."""
    names = pc.replace_substring_regex(rows["name"], r"^.*/", "")
    lists = {name: _lines(folder, f"{name}_list.txt") for name in ("train_val", "test")}
    tests = pc.is_in(names, value_set=lists["test"]).to_pylist()
    trained = pc.is_in(names, value_set=lists["train_val"]).to_pylist()
    kept = {
        patient: "validation" if hash64("nih", patient) % _VALIDATION_ONE_IN == 0 else "train"
        for patient in pc.unique(rows["patient_id"]).to_pylist()
        if patient is not None
    }
    splits = [
        "test" if test else kept.get(patient, "train") if train else None
        for test, train, patient in zip(tests, trained, rows["patient_id"].to_pylist(), strict=True)
    ]
    return pa.array(splits, pa.string())


def _lines(folder: Location, name: str) -> pa.Array:
    for file, _ in _beside(folder, re.compile(f"^{re.escape(name)}$"), levels=3):
        return pa.array(file.read_bytes().decode("latin-1").split(), pa.string())
    return pa.array([], pa.string())


def _list_openi(corpus: ImageCorpus, files: pa.Table, ontology: Ontology) -> ImageListing:
    names = files["name"].combine_chunks()
    study = pc.struct_field(pc.extract_regex(names, _OPENI_NAME), "study")
    known: dict[str, pa.Array | None] = {"study_id": study, "patient_id": study}
    if corpus.table is not None:
        table = read_table(corpus.table)
        if not {_OPENI_IDS, _OPENI_VIEWS} <= set(table.column_names):
            return _list_table(corpus, files, ontology)
        images, views = (pc.list_flatten(table[name].combine_chunks()) for name in (_OPENI_IDS, _OPENI_VIEWS))
        stems = pc.replace_substring_regex(names, r"(^.*/|\.[A-Za-z]+$)", "")
        known["view"] = _take(views, pc.index_in(stems, value_set=images))
    return ImageListing(corpus.folder, "openi", _rows(files, **known))


def _is_openi_table(file: Location) -> bool:
    return {_OPENI_IDS, _OPENI_VIEWS} <= set(parquet_columns(file))


def _list_table(corpus: ImageCorpus, files: pa.Table, ontology: Ontology) -> ImageListing:
    if corpus.table is None:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            "image_kind=table needs the table.",
            fix="Give image_table=FILE, or a table as 'images'.",
        )
    table = read_table(corpus.table)
    return _listed_by(corpus, files, table, corpus.table, corpus.columns, ontology)


def _listed_by(
    corpus: ImageCorpus, files: pa.Table, table: pa.Table, file: Location, wanted: ImageColumns, ontology: Ontology
) -> ImageListing:
    """List what a table names: one row for each file that its rows name, those that are not there too."""
    columns, label_columns = resolve_image_columns(wanted, table.column_names, str(file), ontology)
    _check_no_lists(table, {field: name for field, name in columns.items() if field != "labels"}, str(file))
    table = table.filter(pc.is_valid(table[columns["path"]]))
    place = match_files(files["name"], table[columns["path"]], str(file))
    known = {field: table[name] for field, name in columns.items() if field not in ("path", "labels", "text")}
    if "view" in columns and wanted.view is None:
        known["view"] = pc.coalesce(*(table[name] for name in view_columns(table.column_names)))
    known["name"] = pc.coalesce(files["name"].combine_chunks().take(place), table[columns["path"]].combine_chunks())
    known["bytes"] = pc.fill_null(files["bytes"].combine_chunks().take(place), MISSING_BYTES)
    known["changed"] = pc.fill_null(files["changed"].combine_chunks().take(place), 0)
    if "split" in columns:
        _check_splits(table[columns["split"]], columns["split"], str(file))
    if not wanted.label_columns:
        label_columns = _with_neighbours(table, label_columns, columns)
    labels, states = _labels(table, columns.get("labels"), label_columns, corpus.unlisted, str(file))
    if states is not None:
        known["labels"] = states
    reports = None
    if "text" in columns:
        known.setdefault("study_id", table[columns["path"]])  # what joins an image to the report of its row
        reports = ReportTable(file, _report_columns(columns))
    known = _ids_of_paths(known["name"]) | known
    rows = one_row_a_file(listing_table(known, table.num_rows), str(file))
    unlisted = files.num_rows - pc.count_distinct(place).as_py()
    return ImageListing(corpus.folder, "table", rows, labels, unlisted=unlisted, reports=reports)


def _check_no_lists(table: pa.Table, columns: Mapping[str, str], place: str) -> None:
    for field_name, name in columns.items():
        if not pa.types.is_string(table[name].type):
            raise MedfilipError(
                ErrorCode.CONFIG_INVALID,
                f"The column '{name}' of {place}, taken for '{field_name}', holds lists.",
                fix=f"Give a table with one row an image, or another column: image_columns.{field_name}=COLUMN.",
            )


def _check_splits(column: pa.ChunkedArray, name: str, place: str) -> None:
    stated = [value for value in pc.unique(column).to_pylist() if value is not None]
    if stated and not any(value.strip().lower() in SPLIT_NAMES for value in stated):
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"The column '{name}' of {place}, taken for 'split', has none of the values {', '.join(SPLIT_NAMES)}.",
            fix="Name another column: image_columns.split=COLUMN, or image_columns.split=none to draw splits.",
        )


def _with_neighbours(table: pa.Table, labels: tuple[str, ...], columns: Mapping[str, str]) -> tuple[str, ...]:
    """Complete the columns that name a finding by those among them that hold states under a name of their own."""
    if len(labels) == 1:  # a single column may be called 'mass' for another reason
        return labels if holds_states(table[labels[0]]) else ()
    names = table.column_names
    places = [names.index(label) for label in labels]
    among = names[min(places) : max(places) + 1] if places else []
    return tuple(
        name for name in among if name in labels or (name not in columns.values() and holds_states(table[name]))
    )


def _report_columns(columns: Mapping[str, str]) -> Columns:
    study = columns.get("study_id", columns["path"])
    return Columns(
        report_id=study,
        study_id=study,
        patient_id=columns.get("patient_id", NONE),
        text=columns["text"],
        split=columns.get("split", NONE),
    )


def _labels(
    table: pa.Table, listed: str | None, columns: tuple[str, ...], unlisted: str, place: str
) -> tuple[tuple[str, ...], pa.Array | None]:
    if columns:
        return columns, one_hot_states(table, columns, place)
    if listed is None:
        return (), None
    return list_states(table[listed], unlisted, listed, place)


def _set(rows: pa.Table, name: str, column: pa.Array | pa.ChunkedArray) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), rows.schema.field(name), column)


def _looked_up(table: pa.Table, file: Location, key: str, column: str, keys: pa.Array) -> pa.Array:
    """Return a column of a table for each key."""
    place = _place(table, file, key, keys, column)
    return _take(table[column].combine_chunks(), place)


def _place(table: pa.Table, file: Location, key: str, keys: pa.Array, *others: str) -> pa.Array:
    missing = [name for name in (key, *others) if name not in table.column_names]
    if missing:
        raise MedfilipError(
            ErrorCode.COLUMN_MISSING,
            f"{file} lacks the columns {', '.join(missing)} of its collection.",
            fix="Restore it from the distribution, or move it away to go on without it.",
        )
    return pc.index_in(keys, value_set=table[key].combine_chunks())


def _take(column: pa.Array | pa.ChunkedArray, place: pa.Array) -> pa.Array:
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return whole.take(place)


def _beside(folder: Location, pattern: re.Pattern[str], levels: int = 2) -> Sequence[tuple[Location, re.Match[str]]]:
    """Return the files that match a pattern in a folder or the folders that hold it, the nearest first."""
    found: list[tuple[Location, re.Match[str]]] = []
    place = folder
    for _ in range(levels):
        try:
            place = Location.parse(str(place))  # a folder above may lie outside the places that are allowed
        except MedfilipError:
            break
        if place.is_dir():
            children = sorted(place.children(), key=lambda child: child.name)
            found += [(child, match) for child in children if (match := pattern.match(child.name))]
        if "/" not in place.path.strip("/"):
            break
        place = place.parent
    return found


_LISTERS = {
    "folder": _list_folder,
    "mimic": _list_mimic,
    "nih": _list_nih,
    "openi": _list_openi,
    "table": _list_table,
}


def label_set(listing: ImageListing, ontology: Ontology) -> LabelSet | None:
    """Return the label set of a listing, if its table has labels."""
    return LabelSet.of(listing.labels, ontology) if listing.labels else None
