"""Reports as single text files: the tree of MIMIC-CXR (Johnson et al., Sci Data 2019), or any folder of .txt files.

In MIMIC-CXR ``files/p10/p10000032/s50414267.txt`` is the study 50414267 of the patient 10000032; its splits and what
the scanner called the examination stand in tables beside the tree. In any other folder the path is the report's id.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint
from medfilip.reports.encoding import decode_text
from medfilip.reports.listing import Listed, walk
from medfilip.reports.report import MAX_REPORT_CHARACTERS, RawReport, RejectedReport, Source, make_report
from medfilip.storage.location import Location

FILES_PER_PART = 2_000
MAX_FILE_BYTES = 4 * MAX_REPORT_CHARACTERS
"""A larger file is over the limit on characters in any encoding, and is not read."""

_MIMIC_NAME = re.compile(r"(?:^|/)p\d{2}/p(?P<patient>\d{8})/s(?P<study>\d{8})\.txt$")
_MIMIC_FOLDER = re.compile(r"^p\d{2}$")
_SPLIT_TABLE = re.compile(r"^mimic-cxr-2[.\d]*-split\.csv(?:\.gz)?$")
_METADATA_TABLE = re.compile(r"^mimic-cxr-2[.\d]*-metadata\.csv(?:\.gz)?$")


@dataclass(frozen=True)
class FilesPart:
    """A share of a tree of text files: paths relative to ``folder``; splits and titles by file, where they are known.

    ``stamp`` is a hash of the listing: it changes when a file is added, or changed in size or time.
    """

    folder: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    stamp: str
    mimic: bool
    splits: tuple[str | None, ...]
    titles: tuple[str | None, ...]


@dataclass
class _Tables:
    """What the tables of MIMIC-CXR say, by study."""

    split: dict[str, str] = field(default_factory=dict)
    title: dict[str, str] = field(default_factory=dict)


def is_mimic(folder: Location) -> bool:
    """Whether a folder is the tree of MIMIC-CXR, from its first levels alone."""
    return _mimic_root(folder) is not None


def plan_mimic(folder: Location) -> list[FilesPart]:
    """List the tree in parts, with the official split of each study if the table of splits lies at hand.

    Raises
    ------
    MedfilipError
        ``input_empty`` if it is no such tree, ``column_missing`` if a table lacks its columns.
    """
    root = _mimic_root(folder)
    if root is None:
        raise MedfilipError(
            ErrorCode.INPUT_EMPTY,
            f"There is no tree of MIMIC-CXR at {folder}: no file like p10/p10000032/s50414267.txt.",
            fix="Point 'reports' at the folder that holds 'files', or set kind=text for other text files.",
        )
    # The tables of splits and metadata belong to MIMIC-CXR-JPG and often lie beside or above the tree.
    tables = _read_tables([folder, root, root.parent])
    listed = (file for file in walk(root) if _MIMIC_NAME.search(f"{root.name}/{file.name}"))
    return _parts(root, listed, tables, mimic=True)


def plan_text(folder: Location, listed: Iterable[Listed]) -> list[FilesPart]:
    """Cut a listing of text files into parts."""
    return _parts(folder, listed, _Tables(), mimic=False)


def read_files_part(part: FilesPart, accept: frozenset[str]) -> Iterator[RawReport | RejectedReport]:
    """Yield the reports of a part in the order of their paths; one that cannot be read is yielded as rejected."""
    folder = Location.parse(part.folder)
    for name, size, split, title in zip(part.names, part.sizes, part.splits, part.titles, strict=True):
        source = _source(folder, name, split, title, mimic=part.mimic)
        if size > MAX_FILE_BYTES:
            message = f"The file has {size} bytes; the limit is {MAX_REPORT_CHARACTERS} characters."
            yield RejectedReport(source.report_id, ErrorCode.REPORT_TOO_LONG, message)
            continue
        yield make_report(source, decode_text((folder / name).read_bytes()), accept=accept)


def _source(folder: Location, name: str, split: str | None, title: str | None, *, mimic: bool) -> Source:
    match = _MIMIC_NAME.search(f"{folder.name}/{name}") if mimic else None
    if match is None:
        path = name.removesuffix(".txt")
        return Source(path, path, None, "text")
    return Source(f"s{match['study']}", match["study"], match["patient"], "mimic", split, title)


def _parts(folder: Location, listed: Iterable[Listed], tables: _Tables, *, mimic: bool) -> list[FilesPart]:
    parts: list[FilesPart] = []
    batch: list[Listed] = []
    for file in listed:
        batch.append(file)
        if len(batch) == FILES_PER_PART:
            parts.append(_part(folder, batch, tables, mimic=mimic))
            batch = []
    return [*parts, _part(folder, batch, tables, mimic=mimic)] if batch else parts


def _part(folder: Location, batch: list[Listed], tables: _Tables, *, mimic: bool) -> FilesPart:
    studies = [file.name.rsplit("/", 1)[-1][1:-4] for file in batch]
    splits = tuple(tables.split.get(study) for study in studies)
    titles = tuple(tables.title.get(study) for study in studies)
    return FilesPart(
        str(folder),
        tuple(file.name for file in batch),
        tuple(file.size for file in batch),
        fingerprint([[list(file) for file in batch], list(splits), list(titles)]),
        mimic,
        splits,
        titles,
    )


def _mimic_root(folder: Location) -> Location | None:
    """Return the folder that holds p10 … p19, or is one of them, at or below ``folder``."""
    if not folder.is_dir():
        return None
    if _MIMIC_FOLDER.match(folder.name) and _has_patients(folder):
        return folder
    for place in (folder, folder / "files", folder / "mimic-cxr-reports" / "files"):
        if any(_MIMIC_FOLDER.match(child.name) and _has_patients(child) for child in place.children()):
            return place
    return None


def _has_patients(folder: Location) -> bool:
    return any(re.match(r"^p\d{8}$", child.name) for child in folder.children())


def _read_tables(places: list[Location]) -> _Tables:
    tables = _Tables()
    files = {file.name: file for place in reversed(places) if _allowed(place) for file in place.children()}
    for name in sorted(files):
        if _SPLIT_TABLE.match(name):
            tables.split |= _by_study(files[name], "split")
        elif _METADATA_TABLE.match(name):
            tables.title |= _by_study(files[name], "PerformedProcedureStepDescription")
    return tables


def _allowed(place: Location) -> bool:
    try:
        Location.parse(str(place))
    except MedfilipError:
        return False
    return True


def _by_study(file: Location, column: str) -> dict[str, str]:
    found: dict[str, str] = {}
    with file.filesystem.open_input_stream(file.path) as stream:
        rows = csv.DictReader(
            io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8", errors="replace", newline="")
        )
        missing = {"study_id", column} - set(rows.fieldnames or ())
        if missing:
            raise MedfilipError(
                ErrorCode.COLUMN_MISSING,
                f"{file} lacks the columns {', '.join(sorted(missing))} of MIMIC-CXR.",
                fix="Restore it from the distribution, or move it away to go on without it.",
            )
        for row in rows:
            if row["study_id"] and row[column]:
                found.setdefault(row["study_id"], row[column])
    return found
