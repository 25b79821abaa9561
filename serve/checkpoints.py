"""Finding the checkpoint that a user means: its folder, the run that trained it, or a demo around that run."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.storage.location import Location
from medfilip.storage.manifest import MANIFEST_NAME, Manifest, read_manifest

_FILES = frozenset({"model.safetensors", "config.json", "hashes.json"})


def find_checkpoint(place: str) -> Path:
    """Return the folder of a checkpoint.

    Parameters
    ----------
    place
        A checkpoint; the run of a pretrain job; or a folder with such runs below, of which the newest is taken.

    Raises
    ------
    MedfilipError
        ``URI_NOT_ALLOWED`` for a bucket, ``INPUT_NOT_FOUND`` if there is no checkpoint, ``MANIFEST_CORRUPT``.
    """
    location = Location.parse(place)
    if location.scheme != "file":
        raise MedfilipError(
            ErrorCode.URI_NOT_ALLOWED,
            "A checkpoint is served from a folder, not from a bucket.",
            fix="Copy the checkpoint folder to this machine, or to a disk that all machines of the cluster share.",
        )
    folder = Path(location.path)
    if all((folder / name).is_file() for name in _FILES):
        return folder
    if (folder / MANIFEST_NAME).is_file():
        found = _of_run(folder, read_manifest(location))
    else:
        runs = [path.parent for path in _manifests(folder)]
        dated = [(manifest, run) for run in runs if (manifest := _readable(run)) and _of_run(run, manifest)]
        newest = max(dated, key=lambda item: item[0].finished_at, default=None)
        found = _of_run(newest[1], newest[0]) if newest else None
    if found is None:
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND,
            f"There is no finished checkpoint in {folder}.",
            fix="Give the folder of a checkpoint or of a pretrain run; 'medfilip demo' makes one.",
        )
    return found


def _of_run(run: Path, manifest: Manifest) -> Path | None:
    """Return the last folder that the manifest lists with all files of a checkpoint."""
    folders: dict[str, set[str]] = {}
    for file in manifest.files:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts:
            continue
        folders.setdefault(str(path.parent), set()).add(path.name)
    complete = [name for name, files in folders.items() if files >= _FILES]
    return run / max(complete) if complete else None


def _readable(run: Path) -> Manifest | None:
    """Read a manifest found on the way; whatever is none does not stop the search."""
    try:
        return read_manifest(Location.parse(run))
    except MedfilipError:
        return None


def _manifests(folder: Path) -> list[Path]:
    """List the manifests below a folder; links are not followed."""
    return [Path(top) / MANIFEST_NAME for top, _, names in os.walk(folder) if MANIFEST_NAME in names]
