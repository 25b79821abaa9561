"""Five seeded chaos runs, the same ones every time: one disturbed and resumed job each, compared row by row."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.arena import Corpus, make_corpus
from tests.chaos.seeds import fault_of, run_seed

REPORTS = 600
SEEDS = (8, 25, 35, 44, 21)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    pytest.importorskip("moto")
    return make_corpus(tmp_path_factory.mktemp("corpus") / "c", REPORTS)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seed", SEEDS, ids=fault_of)
def test_a_disturbed_run_ends_with_the_rows_of_an_undisturbed_one(seed: int, corpus: Corpus, tmp_path: Path) -> None:
    result = run_seed(seed, corpus, tmp_path)
    assert result["equal"], result
    assert result["faults"]
