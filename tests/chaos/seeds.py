"""One seed, one chaos run: which faults it draws, and what came of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from medfilip.storage.location import Location
from tests.chaos.arena import Arena, Corpus, arena
from tests.chaos.compare import Result, cache_difference, difference, only_reports, read_result
from tests.chaos.faults import FAULTS, KILLS

_SECOND_FAULT = 0.35
_START_ONCE_MORE = 0.25
"""Share of finished runs that are started again: nothing may change."""

_LASTING = ("s3", "disk")
"""Faults that see the run to its end by themselves: the disk or bucket they bring goes with them."""


def fault_of(seed: int) -> str:
    """Return the first fault of a seed: they take turns, so that any few neighbours cover many."""
    return list(FAULTS)[seed % len(FAULTS)]


def run_seed(seed: int, corpus: Corpus, folder: Path) -> dict[str, Any]:
    """Disturb one run, resume it until it is done, and compare its rows with the undisturbed ones.

    Returns
    -------
    dict
        ``faults``, how every driver ``ended``, ``resumed`` (starts beyond the first), ``seconds``, whether the rows are
        ``equal``, and what differs or failed if not.
    """
    begun = time.monotonic()
    told: dict[str, Any] = {"seed": seed, "fault": fault_of(seed)}
    with arena(folder / f"seed-{seed}", corpus, seed) as place:
        try:
            wrong = _disturb(seed, place)
        except AssertionError as error:
            wrong = {"failed": str(error)[:2000]}
        told |= {"faults": place.faults, "ended": place.told_ends(), "resumed": len(place.ends) - 1}
    told |= {"seconds": round(time.monotonic() - begun, 1), "equal": not wrong}
    return told | ({"difference": wrong} if wrong else {})


def _disturb(seed: int, place: Arena) -> dict[str, Any]:
    kind = fault_of(seed)
    FAULTS[kind](place)
    if kind in _LASTING:
        return place.differences(place.only_run())
    if not place.ends:  # what is disturbed is the input, and nothing has been started yet
        place.start_until_done()
    if place.rng.random() < _SECOND_FAULT and place.ends[-1].exit != 0:
        place.rng.choice(KILLS)(place)
    if place.ends[-1].exit != 0 or place.rng.random() < _START_ONCE_MORE:
        place.start_until_done()
    place.check_ends()
    run = place.only_run()
    return _poison_differences(place, run) if kind == "poison" else place.differences(run)


def _poison_differences(place: Arena, run: Location) -> dict[str, Any]:
    """Compare the rows of the reports that were there before, and the ids of the cache."""
    found, expected = read_result(run), place.corpus.expected
    told = difference(only_reports(found, _reports_of(expected)), only_reports(expected, _reports_of(expected)))
    cache = cache_difference(place.root, found.tables["sentences"])
    return told | ({"cache": cache} if cache else {})


def _reports_of(result: Result) -> list[str]:
    return list(pc.unique(result.tables["occurrences"]["report_id"]).to_pylist())
