"""Finding the checkpoint that a user means, on a disk or in a bucket: its folder, its run, or a folder of runs."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path, PurePosixPath

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.storage.location import Location
from medfilip.storage.manifest import MANIFEST_NAME, Manifest, read_manifest

DEFAULT_CHECKPOINT = Path(__file__).parent / "data" / "default"
"""The small checkpoint that comes with the package, trained on synthetic studies (``pipelines.default_model``)."""
_FILES = frozenset({"model.safetensors", "config.json", "hashes.json"})


def find_checkpoint(place: Location) -> Location:
    """Return the folder of a checkpoint.

    Parameters
    ----------
    place
        A checkpoint; the run of a pretrain job; or a folder with such runs below, of which the newest is taken.

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND`` if there is no finished checkpoint, ``MANIFEST_CORRUPT``.
    """
    if all((place / name).exists() for name in _FILES):
        return place
    if (place / MANIFEST_NAME).exists():
        found = _of_run(place, read_manifest(place))
    else:
        runs = [file.parent for file in place.children(recursive=True) if file.name == MANIFEST_NAME]
        dated = [(manifest, run) for run in runs if (manifest := _readable(run)) and _of_run(run, manifest)]
        newest = max(dated, key=lambda item: item[0].finished_at, default=None)
        found = _of_run(newest[1], newest[0]) if newest else None
    if found is None:
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND,
            f"There is no finished checkpoint in {place}.",
            fix="Give the folder of a checkpoint or of a pretrain run; 'medfilip demo' makes one.",
        )
    return found


@lru_cache(maxsize=4)
def local_copy(checkpoint: Location) -> Path:
    """Return a local folder with the checkpoint; one in a bucket is downloaded, once for each process."""
    if checkpoint.scheme == "file":
        return Path(checkpoint.path)
    folder = Path(tempfile.mkdtemp(prefix="medfilip-checkpoint-"))
    for file in checkpoint.children():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def _of_run(run: Location, manifest: Manifest) -> Location | None:
    """Return the last folder that the manifest lists with all files of a checkpoint."""
    folders: dict[str, set[str]] = {}
    for file in manifest.files:
        path = PurePosixPath(file.path)
        if not path.is_absolute() and ".." not in path.parts:
            folders.setdefault(str(path.parent), set()).add(path.name)
    complete = [name for name, files in folders.items() if files >= _FILES]
    return run / max(complete) if complete else None


def _readable(run: Location) -> Manifest | None:
    """Read a manifest found on the way; whatever is none does not stop the search."""
    try:
        return read_manifest(run)
    except MedfilipError:
        return None
