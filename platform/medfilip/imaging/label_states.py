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
    UNSAID: ("", "nan", "na", "n/a", "<na>", "none", "null"),
}
_STATE_OF = {word: state for state, words in _WORDS.items() for word in words}
_MOST_LABELS = 1000
"""More are no labels; the richest public vocabulary of chest radiographs has some 200."""
_MARKS = "|;,"
_BETWEEN = "\x1f"  # ASCII unit separator: stands between labels that came apart
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")


def one_hot_states(table: pa.Table, labels: Sequence[str], place: str) -> pa.Array:
    """Return the states of a table that has a column a label: 1, 0, -1 for uncertain, empty for not mentioned.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` if a column has other values, naming it.
    """
    columns = [_states_of(table[name].combine_chunks(), name, place) for name in labels]
    return pc.binary_join_element_wise(*columns, "")


def holds_states(column: pa.ChunkedArray) -> bool:
    """Whether all values of a column are states, and at least one says something."""
    if not pa.types.is_string(column.type):
        return False
    states = {_state(value) for value in pc.unique(column).to_pylist() if value is not None}
    return None not in states and bool(states - {UNSAID})


def _state(value: object) -> str | None:
    return _STATE_OF.get(str(value).strip().lower())


def _states_of(column: pa.Array, name: str, place: str) -> pa.Array:
    encoded = column.dictionary_encode() if pa.types.is_string(column.type) else None
    states = [_state(value) for value in encoded.dictionary.to_pylist()] if encoded is not None else [None]
    if encoded is None or None in states:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"The column '{name}' of {place} has values other than 1, 0, -1 and empty, so it is no label.",
            fix="Name the label columns: image_columns.label_columns=[COLUMN,…].",
        )
    return pc.fill_null(pa.array(states, pa.string()).take(encoded.indices), UNSAID)


def list_states(column: pa.ChunkedArray, unlisted: str, name: str, place: str) -> tuple[tuple[str, ...], pa.Array]:
    """Return the labels that occur in a column of lists, and the states of each row.

    A list is one of text, text such as ``['a', 'b']``, or text with ``|``, ``;`` or ``,`` between the labels: with the
    first of these that the column has anywhere, so that a label may have a comma where others stand between labels.
    An empty cell says nothing. Where a row says that there is no finding, the labels that it could have listed are
    absent.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` if the column ``name`` of the table ``place`` holds something else: numbers, or free text.
    """
    encoded = _joined(column).dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    mark = next((mark for mark in (_BETWEEN, *_MARKS) if any(mark in text for text in texts)), _BETWEEN)
    lists = [_split(text, mark) for text in texts]
    names = tuple({plain_label(label): label for found in lists for label in reversed(found)}.values())
    names = tuple(sorted(names, key=plain_label))
    _check_names(names, name, place)
    states = [_states(names, found, unlisted) for found in lists]
    return names, pc.fill_null(pa.array(states, pa.string()).take(encoded.indices), UNSAID * len(names))


def _check_names(names: tuple[str, ...], column: str, place: str) -> None:
    held = f"{len(names)} different labels" if len(names) > _MOST_LABELS else None
    if held is None and any(name.isdecimal() for name in names):
        held = "numbers where names of labels are wanted"
    if held is not None:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"The column '{column}' of {place} holds {held}.",
            fix="If it says whether one finding is there, name the column like the finding and set "
            f"image_columns.label_columns=[{column}]; if it is no label, image_columns.labels=none.",
        )


def _joined(column: pa.ChunkedArray) -> pa.Array:
    """Return lists as text that `_BETWEEN` begins and parts; other text as it is."""
    whole = column.combine_chunks()
    if not pa.types.is_list(whole.type):
        encoded = whole.dictionary_encode()
        return pa.array(map(_taken_apart, encoded.dictionary.to_pylist()), pa.string()).take(encoded.indices)
    lists = ([label for label in row if label is not None] if row is not None else None for row in whole.to_pylist())
    return pa.array((_parted(row) if row is not None else None for row in lists), pa.string())


def _taken_apart(value: str) -> str:
    """Take apart a list that Python or JSON wrote as text."""
    text = value.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return value
    quoted = [first or second for first, second in _QUOTED.findall(text)]
    return _parted(quoted or text[1:-1].split(","))


def _parted(labels: Sequence[str]) -> str:
    return _BETWEEN + _BETWEEN.join(labels)


def _split(text: str, mark: str) -> list[str]:
    labels = (re.sub(r"^['\"\s]+|['\"\s]+$", "", label) for label in text.split(mark))
    return [label for label in labels if plain_label(label)]


def _states(names: tuple[str, ...], found: list[str], unlisted: str) -> str:
    if not found:
        return UNSAID * len(names)
    wanted = {plain_label(label) for label in found}
    rest = ABSENT if any(is_no_finding(label) for label in wanted) else unlisted
    return "".join(PRESENT if plain_label(name) in wanted else rest for name in names)
