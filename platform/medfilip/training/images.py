"""Images of a published run, row by row: verified shards, one row group at a time, a bounded cache of decoded ones."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_bytes
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest, Shard
from medfilip.storage.schemas import IMAGES
from medfilip.storage.shards import check_schema

Pixels = NDArray[np.float32]
Decode = Callable[[bytes], Pixels]
"""Stored pixels (PNG) to the model's input [1, S, S]."""

_OPEN_ROW_GROUPS = 4  # row groups are at most 32 MB


class ImageSource(Protocol):
    """Anything that yields the model's input of a row."""

    def get(self, shard: int, row: int) -> Pixels:
        """Return float32 [1, S, S]; may be called by several threads."""
        ...


def preprocessing(size: int) -> Decode:
    """Return the one preprocessing that training and serving share, for a model of this input size."""
    from medfilip.imaging.preprocess import png_decode, to_model

    def decode(data: bytes) -> Pixels:
        pixels: Pixels = to_model(png_decode(data), size)
        return pixels

    return decode


class ShardedImages:
    """Reads the ``images`` dataset of a run by shard and row.

    Parameters
    ----------
    run, manifest
        The run that published the images.
    decode
        Stored bytes to the model's input.
    cache_mb
        Decoded images kept, in megabytes.
    """

    def __init__(self, run: Location, manifest: Manifest, decode: Decode, *, cache_mb: int = 512) -> None:
        self._run, self._decode, self._budget = run, decode, cache_mb << 20
        self._shards: Sequence[Shard] = manifest.dataset(IMAGES.name).shards
        self._files: dict[int, pq.ParquetFile] = {}
        self._groups: OrderedDict[tuple[int, int], list[bytes]] = OrderedDict()
        self._decoded: OrderedDict[tuple[int, int], Pixels] = OrderedDict()
        self._used = 0
        self._lock = threading.Lock()

    def get(self, shard: int, row: int) -> Pixels:
        """Return the model's input of a row, float32 [1, S, S]."""
        key = shard, row
        with self._lock:
            if key in self._decoded:
                self._decoded.move_to_end(key)
                return self._decoded[key]
            stored = self._stored(shard, row)
        pixels = np.asarray(self._decode(stored), dtype=np.float32)  # outside the lock: what takes the time
        with self._lock:
            if key not in self._decoded:
                self._decoded[key] = pixels
                self._used += pixels.nbytes
            while self._used > self._budget and len(self._decoded) > 1:
                self._used -= self._decoded.popitem(last=False)[1].nbytes
        return pixels

    def _stored(self, shard: int, row: int) -> bytes:
        file = self._open(shard)
        start = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < start + rows:
                return self._group(shard, group)[row - start]
            start += rows
        raise _no_such_row(f"row {row} of image shard {shard}, which has {start} rows")

    def _group(self, shard: int, group: int) -> list[bytes]:
        key = shard, group
        if key not in self._groups:
            self._groups[key] = self._open(shard).read_row_group(group, columns=["pixels"])["pixels"].to_pylist()
            if len(self._groups) > _OPEN_ROW_GROUPS:
                self._groups.popitem(last=False)
        self._groups.move_to_end(key)
        return self._groups[key]

    def _open(self, shard: int) -> pq.ParquetFile:
        if shard not in self._files:
            if not 0 <= shard < len(self._shards):
                raise _no_such_row(f"image shard {shard}; the images run lists {len(self._shards)} shards")
            location = self._run / self._shards[shard].path
            # The hash is verified once, when a shard is first opened; later reads take single row groups.
            if sha256_bytes(location.read_bytes()) != self._shards[shard].sha256:
                raise MedfilipError(
                    ErrorCode.SHARD_CORRUPT,
                    f"The shard {location} does not match the hash in its manifest.",
                    fix="Restore it from a copy, or run the job that wrote it again with --new-run.",
                )
            file = pq.ParquetFile(location.filesystem.open_input_file(location.path))
            check_schema(file.schema_arrow, location, IMAGES)
            self._files[shard] = file
        return self._files[shard]


def _no_such_row(what: str) -> MedfilipError:
    return MedfilipError(
        ErrorCode.SCHEMA_MISMATCH,
        f"A pair points to {what}.",
        fix="Give the images run that the pairs were made from.",
    )
