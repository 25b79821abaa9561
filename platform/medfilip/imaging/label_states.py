"""Label columns of a table → strings of states, a character a label (`medfilip.findings.labels`)."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.findings.labels import ABSENT, PRESENT, UNCERTAIN, UNSAID, is_no_finding, plain_label

_WORDS = {
    PRESENT: ("1", "1.0", "true", "yes", "y", "positive", "present"),
    ABSENT: ("0", "0.0", "false", "no", "n", "negative", "absent"),
    UNCERTAIN: ("-1", "-1.0", "u", "uncertain", "equivocal"),
}
_STATE_OF = {word: state for state, words in _WORDS.items() for word in words}


def one_hot_states(table: pa.Table, labels: Sequence[str], place: str) -> pa.Array:
    """Return the states of a table that has a column a label: 1, 0, -1 for uncertain, empty for not mentioned.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` if a column has other values, naming it.
    """
    columns = [_states_of(table[name].combine_chunks(), name, place) for name in labels]
    return pc.binary_join_element_wise(*columns, "")


def _states_of(column: pa.Array, name: str, place: str) -> pa.Array:
    encoded = column.dictionary_encode()
    states = [_STATE_OF.get(str(value).strip().lower()) for value in encoded.dictionary.to_pylist()]
    if None in states:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"The column '{name}' of {place} has values other than 1, 0, -1 and empty, so it is no label.",
            fix="Name the label columns: image_columns.label_columns=[COLUMN,…].",
        )
    return pc.fill_null(pa.array(states, pa.string()).take(encoded.indices), UNSAID)


def list_states(column: pa.ChunkedArray, unlisted: str) -> tuple[tuple[str, ...], pa.Array]:
    """Return the labels that occur in a column of lists, and the states of each row.

    A list is one of text, or text with ``|``, ``;`` or ``,`` between the labels. An empty cell says nothing. Where a
    row says that there is no finding, the labels that it could have listed are absent.
    """
    whole = column.combine_chunks()
    if pa.types.is_list(whole.type):
        whole = pc.if_else(pc.is_valid(whole), pc.binary_join(whole, "|"), pa.scalar(None, pa.string()))
    encoded = whole.dictionary_encode()
    lists = [_split(str(value)) for value in encoded.dictionary.to_pylist()]
    names = tuple({plain_label(label): label for found in lists for label in reversed(found)}.values())
    names = tuple(sorted(names, key=plain_label))
    states = [_states(names, found, unlisted) for found in lists]
    return names, pc.fill_null(pa.array(states, pa.string()).take(encoded.indices), UNSAID * len(names))


def _split(value: str) -> list[str]:
    text = value.strip().strip("[]")
    mark = next((mark for mark in ("|", ";", ",") if mark in text), "|")
    labels = (re.sub(r"^['\"\s]+|['\"\s]+$", "", label) for label in text.split(mark))
    return [label for label in labels if plain_label(label)]


def _states(names: tuple[str, ...], found: list[str], unlisted: str) -> str:
    if not found:
        return UNSAID * len(names)
    wanted = {plain_label(label) for label in found}
    rest = ABSENT if any(is_no_finding(label) for label in wanted) else unlisted
    return "".join(PRESENT if plain_label(name) in wanted else rest for name in names)
