"""Chaos for engines whose answers vary: after every fault the same ids, each once, and what was committed unchanged.

``openai`` asks a server on this machine that never gives the same row twice; ``dying`` is the vLLM actor with a fault
for a model, which some sentences kill; ``vllm`` is the real engine with random weights on the CPU.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medfilip.core.errors import ErrorCode
from medfilip.extraction.lexicon import LexiconEngine
from medfilip.extraction.names import Names
from medfilip.extraction.reply_format import write_reply
from medfilip.extraction.reply_writer import reply_of
from medfilip.extraction.tiny_llm import make_tiny_llm
from medfilip.findings.ontology import load_ontology
from medfilip.storage.schemas import SENTENCE_FINDINGS
from tests.chaos.arena import Arena, Corpus, arena
from tests.chaos.compare import cached_rows
from tests.chaos.driver import Driver
from tests.chaos.moments import Moment
from tests.support.chat_server import Answer, chat_server
from tests.support.dying_engine import is_poison

SENTENCES = {"openai": 240, "dying": 80, "vllm": 120}
_LIMIT_S = 420.0
"""For one start: an engine that dies is started again a few times."""

_ACTOR = "ray::MapWorker(MapBatches(JournaledEngine))"
_DYING = (
    "from pipelines import vllm_actor; from tests.support.dying_engine import DyingEngine; "
    "vllm_actor.JournaledEngine = DyingEngine; from pipelines.cli import main; main()"
)


def run_engine_seed(seed: int, engine: str, corpus: Corpus, folder: Path) -> dict[str, Any]:
    """Kill driver or worker of a run with a language model, resume it, and look at the rows it has kept."""
    begun = time.monotonic()
    told: dict[str, Any] = {"seed": seed, "fault": engine}
    with arena(folder / f"seed-{seed}", corpus, seed) as place, ENGINES[engine](place, folder) as asked:
        place.settings = [*place.settings, f"max_sentences={SENTENCES[engine]}", "rows_per_block=10"]
        place.limit_s = _LIMIT_S
        try:
            kept = _disturb(place, engine, seed)
            before = len(asked)
            run = place.finish()
            wrong = _differences(place, kept, _expected_ids(corpus, SENTENCES[engine]))
            if set(asked[before:]) & set(_texts(place, kept)):
                wrong["asked_again"] = len(set(asked[before:]) & set(_texts(place, kept)))
            if engine == "dying":
                wrong |= _quarantine_differences(place)
            told["run"] = run.name
        except AssertionError as error:
            wrong = {"failed": str(error)[:2000]}
        told |= {"faults": place.faults, "ended": place.told_ends(), "resumed": len(place.ends) - 1}
    told |= {"seconds": round(time.monotonic() - begun, 1), "equal": not wrong}
    return told | ({"difference": wrong} if wrong else {})


def _disturb(place: Arena, engine: str, seed: int) -> pa.Table:
    """Strike once some rows are committed; returns the rows that were committed when the driver was killed."""
    of_driver = engine == "openai" or seed % 2 == 0
    moment = Moment("found", place.rng.randint(1, 8), round(place.rng.uniform(0, 1), 3))
    with place.started() as driver:
        come = moment.come(place, driver)
        fault = {"kind": "driver" if of_driver else "engine", "moment": moment.told(), "struck": come}
        if come:
            _strike(driver, place.rng, of_driver=of_driver)
        place.faults.append(fault)
        if not of_driver:
            kept = committed_rows(place)
    return committed_rows(place) if of_driver else kept


def _strike(driver: Driver, rng: random.Random, *, of_driver: bool) -> None:
    if of_driver:
        driver.kill()
    else:
        driver.kill_worker(rng, _ACTOR)


def committed_rows(place: Arena) -> pa.Table:
    """Return the rows whose writing Ray's checkpoint has committed."""
    root = Path(place.root.path)
    checkpoint = root.glob("extract-*/*/staging/*/checkpoint/**/*.parquet")
    # A file of rows is named after the entry of the checkpoint that commits it; others may still be written.
    committed = tuple(file.stem for file in checkpoint if ".pending." not in file.name)
    found = [
        pq.read_table(file)
        for file in root.glob("extract-*/*/staging/*/found/*.parquet")
        if committed and file.name.startswith(committed)
    ]
    return pa.concat_tables(found).sort_by("sentence_id") if found else SENTENCE_FINDINGS.empty()


def _expected_ids(corpus: Corpus, at_most: int) -> list[int]:
    sentences = corpus.expected.tables["sentences"]
    ids, counts = sentences["sentence_id"].to_numpy(), sentences["count"].to_numpy()
    return sorted(ids[np.lexsort((ids, -counts))[:at_most]].tolist())


def _differences(place: Arena, kept: pa.Table, expected: list[int]) -> dict[str, Any]:
    rows = cached_rows(place.root).sort_by("sentence_id")
    ids = rows["sentence_id"].to_pylist()
    wrong: dict[str, Any] = {}
    if ids != expected:
        wanted = set(expected)
        wrong["ids"] = {
            "lost": len(wanted - set(ids)),
            "added": len(set(ids) - wanted),
            "twice": len(ids) - len(set(ids)),
        }
    final = {row["sentence_id"]: row for row in rows.to_pylist()}
    changed = sum(final.get(row["sentence_id"]) != row for row in kept.to_pylist())
    place.faults[-1]["committed"] = kept.num_rows
    return wrong | ({"changed": changed} if changed else {})


def _texts(place: Arena, rows: pa.Table) -> list[str]:
    sentences = place.corpus.expected.tables["sentences"]
    held = np.isin(sentences["sentence_id"].to_numpy(), rows["sentence_id"].to_numpy())
    return list(sentences.filter(pa.array(held))["text"].to_pylist())


def _quarantine_differences(place: Arena) -> dict[str, Any]:
    rows = cached_rows(place.root)
    quarantined = rows.filter(
        pa.array([status == ErrorCode.ENGINE_QUARANTINED for status in rows["status"].to_pylist()])
    )
    deadly = {text for text in _texts(place, rows) if is_poison(text)}
    found = set(_texts(place, quarantined))
    return {} if found == deadly else {"quarantined": {"missed": len(deadly - found), "wrongly": len(found - deadly)}}


@contextmanager
def _openai(place: Arena, _: Path) -> Iterator[list[str]]:
    rules, names, number = LexiconEngine(), Names(load_ontology()), itertools.count(1)
    asked: list[str] = []

    def answer(sentence: str, _: dict[str, Any]) -> Answer:
        asked.append(sentence)
        time.sleep(0.03)
        reply = write_reply(reply_of(sentence, rules.extract(sentence, None).findings, names))
        # Another number in every answer: a row that was computed twice would show it.
        return Answer(reply, cached=next(number))

    with chat_server(answer) as server:
        place.settings += [
            "engine=openai",
            f"openai.base_url={server.url}",
            "openai.model=m",
            "openai.concurrency=4",
            "--allow-remote",
        ]
        yield asked


@contextmanager
def _dying(place: Arena, folder: Path) -> Iterator[list[str]]:
    place.program = ["-c", _DYING]
    model = make_tiny_llm(folder / "tiny")
    place.settings += ["engine=vllm", f"vllm.model={model}", "vllm.batch_size=8", "vllm.max_restarts=300"]
    yield []


@contextmanager
def _vllm(place: Arena, folder: Path) -> Iterator[list[str]]:
    model = make_tiny_llm(folder / "tiny")
    place.settings += ["engine=vllm", f"vllm.model={model}", "vllm.batch_size=8", "vllm.max_output_tokens=24"]
    yield []


ENGINES: dict[str, Callable[[Arena, Path], Any]] = {"openai": _openai, "dying": _dying, "vllm": _vllm}
