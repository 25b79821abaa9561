"""The report's own sentences as training texts: what there is without extraction, for comparison with it.

A finding is told by the sentences it was read from, as they stand, together with everything else they say.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest
from medfilip.storage.shards import iter_shards

_FILE = "sentences-of-mentions.parquet"


def write_sentences(staging: Location, findings: tuple[Location, Manifest]) -> None:
    """Write the sentence of each mention of an extract run, by mention, for the workers that write texts."""
    ids, texts = _columns(findings, "sentences", ["sentence_id", "text"])
    order = np.argsort(ids)
    mentions, sentences = _columns(findings, "mentions", ["mention_id", "sentence_id"])
    position = order[np.searchsorted(ids[order], sentences.to_numpy())]
    text = pa.DictionaryArray.from_arrays(pa.array(position, pa.int32()), texts.combine_chunks())
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"mention_id": mentions, "text": text}).sort_by("mention_id"), sink)
    (staging / _FILE).write_bytes(sink.getvalue().to_pybytes())


def sentences_of(staging: Location, finding: Mapping[str, Any]) -> list[str]:
    """Return the distinct sentences of a resolved finding, in the order of its mentions."""
    ids, texts = _written(str(staging / _FILE))
    found = [texts[int(at)].as_py() for at in np.searchsorted(ids, finding["mention_ids"] or [])]
    return list(dict.fromkeys(found))


def _columns(findings: tuple[Location, Manifest], dataset: str, names: list[str]) -> tuple[np.ndarray, pa.ChunkedArray]:
    table = pa.concat_tables(iter_shards(*findings, dataset, names))
    return table[names[0]].to_numpy(), table[names[1]]


@lru_cache(maxsize=2)
def _written(uri: str) -> tuple[np.ndarray, pa.Array]:
    table = pq.read_table(pa.BufferReader(Location.parse(uri).read_bytes()))
    return table["mention_id"].to_numpy(), table["text"].combine_chunks()
