"""A run again from its manifest: the same numbers, inputs found by what they hold, differences listed."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.storage.location import Location
from pipelines.reproduce import Reproducer
from pipelines.reproduce_command import show
from tests.ray.conftest import Ran, run_job


@pytest.fixture(scope="module")
def injected(extracted: Ran, ingested: Ran, root: Path) -> Ran:
    return Ran.of(run_job("inject", f"findings={extracted.location}", f"images={ingested.location}", f"root={root}"))


def test_a_run_and_its_inputs_come_out_as_they_were(injected: Ran, corpus: Path, root: Path, tmp_path: Path) -> None:
    raw = (f"ingest.reports={corpus}", f"ingest.images={corpus}/images")
    done = Reproducer(Location.parse(str(tmp_path)), [Location.parse(str(root))], raw, deep=True).work(
        injected.location
    )
    jobs = {item.job: item for item in (done, *done.inputs, *done.inputs[0].inputs)}
    assert set(jobs) == {"inject", "extract", "ingest"}
    assert all(item.same and not item.differences and not item.code_changed for item in jobs.values())
    assert all(
        Path(item.location).is_relative_to(tmp_path) and item.location != item.original for item in jobs.values()
    )
    text = io.StringIO()
    show(done, Console(file=text, width=100))
    assert text.getvalue().count("the same") == 4  # ingest is an input of extract and of inject


def test_without_the_raw_data_the_runs_made_from_it_are_taken_as_they_are(
    injected: Ran, ingested: Ran, root: Path, tmp_path: Path
) -> None:
    done = Reproducer(Location.parse(str(tmp_path)), [Location.parse(str(root))], deep=True).work(injected.location)
    assert done.same and done.taken == (str(ingested.location),)
    assert [item.job for item in done.inputs] == ["extract"] and done.inputs[0].taken == (str(ingested.location),)


def test_an_input_that_is_nowhere_is_named(injected: Ran, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MedfilipError) as caught:
        Reproducer(Location.parse(str(tmp_path)), [Location.parse(str(tmp_path / "empty"))]).work(injected.location)
    assert caught.value.code is ErrorCode.INPUT_NOT_FOUND and "inject.findings=PLACE" in str(caught.value.fix)


def test_what_differs_is_listed(extracted: Ran, ingested: Ran, root: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "ingest-0" / ingested.location.name  # found wherever it lies
    shutil.copytree(ingested.location.path, moved)
    limit = ("extract.max_sentences=5",)
    reproducer = Reproducer(Location.parse(str(tmp_path / "new")), [Location.parse(str(tmp_path / "elsewhere"))], limit)
    done = reproducer.work(extracted.location)
    assert not done.same and any(item.what.startswith("rows of") for item in done.differences)
    text = io.StringIO()
    show(done, Console(file=text, width=100))
    assert "differences" in text.getvalue() and "→" in text.getvalue()
