"""The look over all parts: by keys it decides what plain sets of strings decide, and holds few bytes a row."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pipelines.look_over
import pipelines.row_index
from medfilip.core.ids import pseudonym
from medfilip.reports.splits import SPLITS
from medfilip.storage.location import Location
from pipelines.look_over import Decided, Look, Pairs, StagedPart, Verdict, look_over
from pipelines.row_index import KEYS, IndexRow, write_index
from tests.support.plain_look import PlainLook, plain_look

KEY = b"key"
SHARES = {"train": 0.5, "validation": 0.2, "test": 0.3}

few = st.integers(0, 5)
split = st.sampled_from([None, None, None, *SPLITS])


@st.composite
def rows(draw: st.DrawFn, kind: str) -> IndexRow:
    """A row of which any id may be another's: patients, studies, contents and ids of few values."""
    study = draw(few)
    # Most rows of a study name its patient; some name another, or (as images do) none but their study.
    patient = draw(st.sampled_from([f"p{study // 2}", f"p{study // 2}", f"p{draw(few)}", f"s{study}"]))
    return IndexRow(
        draw(st.sampled_from([f"{kind}{draw(few)}", f"{kind}{study}-{draw(few)}"])),
        pseudonym(KEY, "patient", patient),
        pseudonym(KEY, "study", str(study)),
        hashlib.sha256(f"{draw(st.integers(0, 8))}".encode()).hexdigest(),
        draw(split),
        draw(st.sampled_from(["report", "report", "correction", "preliminary", "addendum"]))
        if kind == "r"
        else "report",
        draw(st.sampled_from([None, 1.0, 2.0, 3.0])),
    )


def parts(kind: str) -> st.SearchStrategy[list[list[IndexRow]]]:
    return st.lists(st.lists(rows(kind), max_size=8), max_size=3)


def looked(folder: Path, reports: Sequence[list[IndexRow]], images: Sequence[list[IndexRow]]) -> tuple[Look, Decided]:
    staged: list[list[StagedPart]] = []
    for name, tables in (("reports", reports), ("images", images)):
        staged.append([])
        for number, table in enumerate(tables):
            file = Location.parse(folder / f"{name}-{number}.parquet")
            write_index(file, table, KEY)
            staged[-1].append(StagedPart(file.name, file, len(table)))
    look = Look(*staged)
    return look, look_over(look, SHARES)


def as_plain(
    look: Look, decided: Decided, reports: Sequence[list[IndexRow]], images: Sequence[list[IndexRow]]
) -> PlainLook:
    every = [row for table in [*reports, *images] for row in table]
    named = np.arange(len(every))
    named[decided.named_by.rows] = decided.named_by.others
    assert all(every[by].study == row.study for by, row in zip(named, every, strict=True))
    return PlainLook(
        [Verdict(verdict).name for verdict in decided.verdicts],
        appended(decided.addenda),
        [every[number].patient for number in named],
        [SPLITS[number] for number in decided.splits],
    )


def appended(addenda: Pairs) -> dict[int, list[int]]:
    """Return row → its addenda."""
    return {row: addenda.within(row, row + 1).others.tolist() for row in addenda.rows.tolist()}


def flat(tables: Sequence[list[IndexRow]]) -> list[IndexRow]:
    return [row for table in tables for row in table]


@settings(max_examples=60, deadline=None)
@given(parts("r"), parts("i"))
def test_keys_decide_what_strings_decide(reports: list[list[IndexRow]], images: list[list[IndexRow]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        look, decided = looked(Path(folder), reports, images)
        assert as_plain(look, decided, reports, images) == plain_look(flat(reports), flat(images), KEY, SHARES)


@settings(max_examples=60, deadline=None)
@given(parts("r"), parts("i"))
def test_rows_decided_in_many_batches_are_decided_alike(
    reports: list[list[IndexRow]], images: list[list[IndexRow]]
) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(pipelines.look_over, "_ROWS_AT_ONCE", 2)
        look, decided = looked(Path(folder), reports, images)
        assert as_plain(look, decided, reports, images) == plain_look(flat(reports), flat(images), KEY, SHARES)


@settings(max_examples=60, deadline=None)
@given(parts("r"), parts("i"))
def test_ids_whose_keys_are_equal_by_chance_are_told_apart(
    reports: list[list[IndexRow]], images: list[list[IndexRow]]
) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(pipelines.row_index, "hash64", lambda row_id: 7)
        _, decided = looked(Path(folder), reports, images)
        plain = plain_look(flat(reports), flat(images), KEY, SHARES)
        assert [Verdict(verdict).name for verdict in decided.verdicts] == plain.verdicts
        assert appended(decided.addenda) == plain.addenda


def test_a_row_is_held_in_few_bytes() -> None:
    assert KEYS.itemsize <= 48


def test_places_are_found_across_empty_parts(tmp_path: Path) -> None:
    one = [IndexRow(name, "ab" * 10, "cd" * 10, "ef" * 32, None) for name in "xy"]
    look, _ = looked(tmp_path, [[], one, []], [one[:1]])
    parts, rows = look.places(np.array([2, 0, 1]))
    assert (parts.tolist(), rows.tolist()) == ([3, 1, 1], [0, 0, 1])
    assert [table["row_id"].to_pylist() for table in look.rows(np.array([1, 2]))] == [["y"], ["x"]]


def test_a_report_that_names_no_patient_names_none_for_the_image_of_its_study(tmp_path: Path) -> None:
    own, study = pseudonym(KEY, "patient", "header"), pseudonym(KEY, "study", "s")
    unnamed = IndexRow("r", pseudonym(KEY, "patient", "s"), study, "ef" * 32, None, names_patient=False)
    image = IndexRow("i", own, study, "ab" * 32, None)
    _, decided = looked(tmp_path, [[unnamed]], [[image]])
    assert not len(decided.named_by.rows) and decided.splits[0] == decided.splits[1]
    _, decided = looked(tmp_path, [[unnamed._replace(names_patient=True)]], [[image]])
    assert decided.named_by.rows.tolist() == [1]


def test_a_template_of_many_patients_ties_nobody_and_a_copied_report_does(tmp_path: Path) -> None:
    def report(number: int, text: str) -> IndexRow:
        names = (pseudonym(KEY, kind, str(number)) for kind in ("patient", "study"))
        return IndexRow(f"r{number}", *names, hashlib.sha256(text.encode()).hexdigest(), None, "report", None)

    normal = [report(number, "normal chest") for number in range(200)]
    copied = [report(1000 + number, f"copy {number // 3}") for number in range(150)]

    _, decided = looked(tmp_path, [normal, copied], [])

    assert decided.templates == 200
    assert set(decided.splits[:200].tolist()) == {0, 1, 2}
    assert all(len(set(decided.splits[at : at + 3].tolist())) == 1 for at in range(200, 350, 3))
