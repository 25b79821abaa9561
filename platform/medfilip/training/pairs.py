"""The pairs of a split as columns: what a process holds of a corpus of any size.

A report sentence repeats itself, and so do findings: each distinct finding, with its codes and the texts that tell it,
is held once as a *statement*, and a pair holds the numbers of its statements. A million images take some 60 MB.

Legend of tensor names: I images, N units (studies, or single images), F statements of units.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor

from medfilip.core.ids import hash64
from medfilip.findings.codes import CERTAINTIES, Codebook
from medfilip.findings.finding import Certainty
from medfilip.similarity.tables import VIEWS

Ints = NDArray[np.int64]
_UNKNOWN = VIEWS.index("unknown")
_SCALARS = ("category", "certainty", "severity", "laterality")


@dataclass(frozen=True)
class Statement:
    """A distinct finding: its codes (a row of `medfilip.findings.codes.FindingCode`) and the ids of its texts."""

    code: dict[str, Any]
    text_ids: tuple[int, ...]


@dataclass(frozen=True)
class Columns:
    """Units in the order in which their images are stored.

    Attributes
    ----------
    shard_I, row_I, view_I
        Where an image lies in the ``images`` dataset, and its index into `medfilip.similarity.tables.VIEWS`.
    image_start_N1
        Images of unit n are [image_start_N1[n], image_start_N1[n + 1]).
    statement_F, finding_start_N1
        Statement numbers, and where those of a unit begin.
    statements
        The distinct findings.
    fingerprint
        Names the images in their order.
    """

    shard_I: Ints
    row_I: Ints
    view_I: Ints
    image_start_N1: Ints
    statement_F: Ints
    finding_start_N1: Ints
    statements: tuple[Statement, ...]
    fingerprint: int

    def __len__(self) -> int:
        return len(self.image_start_N1) - 1

    def images_of(self, unit: int) -> range:
        """Positions of a unit's images."""
        return range(int(self.image_start_N1[unit]), int(self.image_start_N1[unit + 1]))

    def statements_of(self, unit: int) -> list[Statement]:
        """Return the statements of a unit."""
        found = self.statement_F[self.finding_start_N1[unit] : self.finding_start_N1[unit + 1]]
        return [self.statements[at] for at in found]


def build_columns(tables: Iterable[pa.Table], *, by_study: bool, left_out: frozenset[int] = frozenset()) -> Columns:
    """Turn the ``pairs`` of a split, in their stored order, into columns.

    Parameters
    ----------
    tables
        Shards with the columns of `medfilip.storage.schemas.PAIRS`.
    by_study
        Whether the images of a study make one unit; else each image is one.
    left_out
        Categories whose findings are dropped; the images stay.
    """
    book = _Book(left_out)
    units: dict[object, int] = {}
    unit_I: list[int] = []
    told_by: list[int] = []  # the row whose findings a unit has: that of its first image
    numbers, counts, places, names = [], [], [], []
    for table in tables:
        number_F, count_R = book.numbers(table["findings"].combine_chunks())
        numbers.append(number_F)
        counts.append(count_R)
        places.append(_places(table))
        names += table["image_id"].to_pylist()
        for unit in table["study_id"].to_pylist() if by_study else table["image_id"].to_pylist():
            if unit not in units:
                units[unit] = len(units)
                told_by.append(len(unit_I))
            unit_I.append(units[unit])
    order_I = np.argsort(np.array(unit_I, np.int64), kind="stable")
    place_I3 = np.concatenate([np.zeros((0, 3), np.int64), *places])[order_I]
    end_R = np.cumsum(np.concatenate([np.zeros(0, np.int64), *counts]))
    count_N = np.diff(end_R, prepend=0)[told_by]
    # The findings of unit n are those before end_R[told_by[n]], as many as it has.
    last_F = np.repeat(end_R[told_by] - np.cumsum(count_N), count_N)
    return Columns(
        place_I3[:, 0],
        place_I3[:, 1],
        place_I3[:, 2],
        _starts(np.bincount(np.array(unit_I, np.int64), minlength=len(units))),
        np.concatenate([np.zeros(0, np.int64), *numbers])[last_F + np.arange(len(last_F))],
        _starts(count_N),
        tuple(book.statements),
        hash64(*names),
    )


class _Book:
    """Numbers distinct findings as they come."""

    def __init__(self, left_out: frozenset[int]) -> None:
        self._left_out, self._known = np.array(sorted(left_out), np.int64), dict[tuple[Any, ...], int]()
        self.statements: list[Statement] = []

    def numbers(self, findings: pa.ListArray) -> tuple[Ints, Ints]:
        """Return the number of each finding of a shard, and how many findings each row has.

        Rows of Python objects take twenty times as long, so findings are compared as columns first, and only one of
        each kind is looked up.
        """
        flat = findings.flatten()
        row_F = pc.list_parent_indices(findings).to_numpy(zero_copy_only=False)
        kept_F = ~np.isin(flat.field("category").to_numpy(zero_copy_only=False), self._left_out)
        flat, row_F = flat.filter(pa.array(kept_F)), row_F[kept_F]
        scalars_F4 = np.stack([flat.field(slot).to_numpy(zero_copy_only=False) for slot in _SCALARS], axis=1)
        lists_F2 = np.stack([_list_key(flat.field(name)) for name in ("sites", "text_ids")], axis=1)
        key_F6 = np.concatenate([scalars_F4.astype(np.int64), lists_F2], axis=1)
        _, first_U, kind_F = np.unique(key_F6, axis=0, return_index=True, return_inverse=True)
        number_U = np.array([self._number(flat[int(at)].as_py()) for at in first_U], np.int64)
        return number_U[kind_F.ravel()], np.bincount(row_F, minlength=len(findings)).astype(np.int64)

    def _number(self, item: Mapping[str, Any]) -> int:
        scalars = tuple(item[slot] for slot in _SCALARS)
        key = (*scalars, tuple(item["sites"]), tuple(item["text_ids"]))
        number = self._known.setdefault(key, len(self.statements))
        if number == len(self.statements):
            code = dict(zip(_SCALARS, scalars, strict=True)) | {"sites": list(item["sites"])}
            self.statements.append(Statement(code, tuple(item["text_ids"])))
        return number


def _list_key(lists: pa.ListArray) -> Ints:
    """Write each list of integers as one 64-bit number; lists that differ share one with a probability of 2⁻⁶⁴."""
    length_F = pc.list_value_length(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    value_X = lists.flatten().to_numpy(zero_copy_only=False).astype(np.uint64)
    start_F = np.cumsum(length_F) - length_F
    position_X = np.arange(len(value_X)) - np.repeat(start_F, length_F)
    with np.errstate(over="ignore"):
        mixed_X = _mixed(value_X + _mixed(position_X.astype(np.uint64) + np.uint64(1)))
        running_X = np.cumsum(np.concatenate([np.zeros(1, np.uint64), mixed_X]), dtype=np.uint64)
        summed_F = running_X[start_F + length_F] - running_X[start_F]
    return np.asarray(summed_F + length_F.astype(np.uint64)).view(np.int64)


def _mixed(value_X: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread numbers over 64 bits, one to one (the finaliser of SplitMix64; Steele et al., OOPSLA 2014)."""
    value_X = (value_X ^ (value_X >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value_X = (value_X ^ (value_X >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value_X ^ (value_X >> np.uint64(31))


def _places(table: pa.Table) -> Ints:
    """Return shard, row and view code of each image, [I, 3]."""
    views = [VIEWS.index(view) if view in VIEWS else _UNKNOWN for view in table["view"].to_pylist()]
    columns = [table[name].to_numpy() for name in ("image_shard", "image_row")]
    places: Ints = np.stack([*columns, np.array(views)], axis=1).astype(np.int64).reshape(-1, 3)
    return places


def _starts(counts: Ints) -> Ints:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def silence(columns: Columns, codebook: Codebook) -> Tensor:
    """Estimate how much the silence of a corpus about a category says; float32 [C] in (0, 1].

    Radiologists deny what they are asked about and what is dangerous to miss, and name the rest only when they see it.
    Where a category is never denied, its absence is told by silence alone; one that is denied in nine reports of ten
    was perhaps overlooked in the tenth. The share of statements about a category that say it is there (or may be) is
    therefore the weight of silence. Statements count for the categories above too; one nobody speaks about has 1.
    """
    stated, denied = np.ones(len(codebook.categories)), np.zeros(len(codebook.categories))
    counts = np.bincount(columns.statement_F, minlength=len(columns.statements))
    for statement, count in zip(columns.statements, counts, strict=True):
        name = codebook.categories[statement.code["category"]]
        if CERTAINTIES[statement.code["certainty"]] == Certainty.ABSENT:
            denied[codebook.categories.index(name)] += count
        else:
            for category in codebook.ontology.ancestors(name) | {name}:
                stated[codebook.categories.index(category)] += count
    return torch.from_numpy(stated / (stated + denied)).to(torch.float32)
