"""Five seeded chaos runs, the same ones every time: a disturbed and resumed job each, compared row by row."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.arena import Corpus, make_corpus
from tests.chaos.llm import run_engine_seed
from tests.chaos.seeds import fault_of, run_seed

REPORTS = 400
SEEDS = (8, 35, 44, 21)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return make_corpus(tmp_path_factory.mktemp("corpus") / "phantoms", REPORTS)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", SEEDS, ids=fault_of)
def test_a_disturbed_run_ends_with_the_rows_of_an_undisturbed_one(seed: int, corpus: Corpus, tmp_path: Path) -> None:
    if fault_of(seed) == "s3":
        pytest.importorskip("moto")
    result = run_seed(seed, corpus, tmp_path)
    assert result["equal"], result
    assert result["faults"]


@pytest.mark.timeout(400)
def test_a_killed_run_of_an_endpoint_keeps_what_it_had_committed_and_asks_once(corpus: Corpus, tmp_path: Path) -> None:
    result = run_engine_seed(0, "openai", corpus, tmp_path)
    assert result["equal"], result
    assert result["faults"][0]["committed"] > 0
