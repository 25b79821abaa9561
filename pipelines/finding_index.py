"""Findings brought to the images of their studies: each findings shard is cut once, each image shard reads its part.

Image shards are taken in groups. Each findings shard is read once and cut by group; an image shard then reads what was
cut for its group. Everything is read and written a bounded number of times however many shards there are, and no
process holds more than a shard and the keys of all studies with images (12 bytes each, mapped where they are local).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from medfilip.core.ids import hash64_each
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest
from medfilip.storage.schemas import IMAGES, RESOLVED_FINDINGS
from medfilip.storage.shards import corrupt, read_shard, read_staged, write_staged
from pipelines.runtime import Progress, map_parts
from pipelines.sentences import NumberedShard, numbered_shards

Keys = npt.NDArray[np.int64]
Owners = tuple[Keys, npt.NDArray[np.int32]]
"""Keys of studies, sorted, and the group of image shards that each has an image in; a study may stand several times."""

Selected = Callable[[pa.Table], dict[str, Any]]
"""Findings of studies with images → what a part's record says of them, beside which groups it has rows for."""

_GROUPS, _SHARDS_OF_A_GROUP = 256, 16
_OWNERS = "owners-of-all"
_OWNER_BYTES = 12


@dataclass(frozen=True)
class FindingIndex:
    """What has been cut.

    Attributes
    ----------
    folder
        Where it lies in staging.
    parts
        Group → numbers of the findings shards that have rows for it, in their order.
    groups
        Number of groups.
    """

    folder: Location
    parts: dict[int, tuple[int, ...]]
    groups: int

    def findings_of(self, shard: int, studies: pa.ChunkedArray) -> dict[str, list[dict[str, Any]]]:
        """Return the findings of the studies of an image shard, by study, in the order of the findings dataset."""
        wanted = pc.unique(studies)
        found: dict[str, list[dict[str, Any]]] = {}
        for part in self.parts.get(shard % self.groups, ()):
            table = read_staged(self.folder / _cut_name(shard % self.groups, part), RESOLVED_FINDINGS)
            for row in table.filter(pc.is_in(table["study_id"], value_set=wanted)).to_pylist():
                found.setdefault(row["study_id"], []).append(row)
        return found


def group_count(image_shards: int) -> int:
    """Return how many groups image shards are taken in: one each while they are few."""
    return max(1, min(image_shards, max(_GROUPS, image_shards // _SHARDS_OF_A_GROUP)))


def index_findings(
    staging: Location,
    images: tuple[Location, Manifest],
    findings: tuple[Location, Manifest],
    *,
    groups: int | None = None,
    selected: Selected | None = None,
    progress: Progress | None = None,
) -> tuple[FindingIndex, list[dict[str, Any]]]:
    """Cut the findings of a run by the image shards of another; resumes part by part.

    Parameters
    ----------
    images, findings
        Runs with ``images`` and ``resolved_findings``.
    groups
        Number of groups; by default `group_count`.
    selected
        Looks at the findings of studies with images, once each.

    Returns
    -------
    index, records
        The index, and what ``selected`` said of each findings shard.
    """
    shards = numbered_shards(images[1], IMAGES.name)
    groups = groups or group_count(len(shards))
    folder = staging / "findings"
    owners = partial(_owners_of_shard, images=images[0], folder=folder, groups=groups)
    map_parts(staging, "owners", owners, shards, progress=progress)
    map_parts(staging, "merge-owners", partial(_merge_owners, folder=folder), [len(shards)])
    cut = partial(_cut_shard, findings=findings[0], folder=folder, selected=selected)
    records = map_parts(staging, "cut", cut, numbered_shards(findings[1], RESOLVED_FINDINGS.name), progress=progress)
    parts: dict[int, list[int]] = {}
    for number, record in enumerate(records):
        for group in record["groups"]:
            parts.setdefault(group, []).append(number)
    index = FindingIndex(folder, {group: tuple(numbers) for group, numbers in parts.items()}, groups)
    return index, [record["selected"] for record in records]


def study_keys(studies: pa.ChunkedArray) -> Keys:
    """Return a 64-bit key for each study; what shares a key is told apart by name where it is read."""
    return hash64_each(studies.to_pylist())


def _owners_of_shard(numbered: NumberedShard, *, images: Location, folder: Location, groups: int) -> dict[str, Any]:
    """Note which studies have an image in a shard."""
    number, shard = numbered
    table = read_shard(images, shard, IMAGES, ["study_id"])
    keys = np.unique(study_keys(pc.unique(table["study_id"])))
    _write_owners(folder / f"owners/part-{number:05d}", (keys, np.full(len(keys), number % groups, np.int32)))
    return {}


def _merge_owners(parts: int, *, folder: Location) -> dict[str, Any]:
    tables = [_read_owners(folder / f"owners/part-{number:05d}") for number in range(parts)]
    studies = np.concatenate([np.empty(0, np.int64), *(table[0] for table in tables)])
    groups = np.concatenate([np.empty(0, np.int32), *(table[1] for table in tables)])
    order = np.lexsort((groups, studies))
    studies, groups = studies[order], groups[order]
    first = np.append([True], (studies[1:] != studies[:-1]) | (groups[1:] != groups[:-1]))[: len(studies)]
    _write_owners(folder / _OWNERS, (studies[first], groups[first]))
    return {}


def _write_owners(file: Location, owners: Owners) -> None:
    data = b"".join(column.tobytes() for column in owners)
    file.write_bytes(_digest(data) + data)


def _read_owners(file: Location) -> Owners:
    local = file.scheme == "file"
    content = np.memmap(file.path, np.uint8, mode="r") if local else np.frombuffer(file.read_bytes(), np.uint8)
    start = len(_digest(b""))
    data = content[start:]
    if content[:start].tobytes() != _digest(data):
        raise corrupt(file)
    rows = len(data) // _OWNER_BYTES
    return data[: 8 * rows].view("<i8"), data[8 * rows :].view("<i4")


def _digest(data: bytes | npt.NDArray[np.uint8]) -> bytes:
    """Return what stands before the owners: as many bytes as keep their columns aligned."""
    return hashlib.sha256(data if isinstance(data, bytes) else data.data).digest()


@lru_cache(maxsize=2)
def _all_owners(uri: str) -> Owners:
    return _read_owners(Location.parse(uri))


def _cut_shard(
    numbered: NumberedShard, *, findings: Location, folder: Location, selected: Selected | None
) -> dict[str, Any]:
    """Write a findings shard's rows for each group that has images of their studies."""
    number, shard = numbered
    table = read_shard(findings, shard, RESOLVED_FINDINGS)
    owners = _all_owners(str(folder / _OWNERS))
    keys = study_keys(table["study_id"])
    first = np.searchsorted(owners[0], keys)
    after = np.searchsorted(owners[0], keys, side="right")
    groups = []
    for group, rows in _rows_by_group(owners[1], first, after):
        write_staged(folder / _cut_name(group, number), RESOLVED_FINDINGS, table.take(rows))
        groups.append(group)
    told = selected(table.filter(pa.array(after > first))) if selected else {}
    return {"groups": groups, "selected": told}


def _rows_by_group(owners: npt.NDArray[np.int32], first: Keys, after: Keys) -> Iterator[tuple[int, Keys]]:
    """Yield each group with the rows whose study has an image in it; a study's images may lie in several groups."""
    counts = after - first
    rows = np.repeat(np.arange(len(first)), counts)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    group = owners[first[rows] + within]
    order = np.argsort(group, kind="stable")
    found, starts = np.unique(group[order], return_index=True)
    # Without rows there is one empty part and no group.
    yield from zip(found.tolist(), np.split(rows[order], starts[1:]), strict=False)


def _cut_name(group: int, part: int) -> str:
    return f"group-{group:05d}/part-{part:05d}.parquet"
