"""Trees of many small files, listed in a fixed order without holding more than a branch of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pyarrow.fs as pafs

from medfilip.storage.location import Location

_SINGLE_LEVELS = 2
"""Levels that are listed folder by folder; below, a whole branch at once, since on S3 every listing is a request."""


class Listed(NamedTuple):
    """A file by its path relative to the listed folder, with size in bytes and time of change in nanoseconds."""

    name: str
    size: int
    changed: int


def walk(folder: Location) -> Iterator[Listed]:
    """Yield all files below a folder; hidden files and folders are left out. The order depends on names alone."""
    yield from _walk(folder, f"{folder.path}/", _SINGLE_LEVELS)


def _walk(folder: Location, root: str, levels: int) -> Iterator[Listed]:
    if levels == 0:
        yield from (_listed(info, root) for info in folder.files() if "/." not in info.path.removeprefix(folder.path))
        return
    infos = folder.filesystem.get_file_info(pafs.FileSelector(folder.path, allow_not_found=True))
    for info in sorted(infos, key=lambda one: one.path):
        if info.base_name.startswith("."):
            continue
        if info.type == pafs.FileType.Directory:
            yield from _walk(Location(folder.scheme, info.path), root, levels - 1)
        else:
            yield _listed(info, root)


def _listed(info: pafs.FileInfo, root: str) -> Listed:
    return Listed(info.path.removeprefix(root), int(info.size), int(info.mtime_ns or 0))
