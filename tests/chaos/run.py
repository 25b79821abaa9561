"""Many chaos runs without anybody watching.

Usage: ``python -m tests.chaos.run --seeds 0-99 --out RESULT.json [--reports 1200] [--limit 400]``. One JSON line a seed
is appended to the result, so that it can be stopped at any time and goes on where it stopped. What decides a run must
not change meanwhile: start it from a checkout that nobody edits.
"""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from tests.benchmarks.environment import environment
from tests.chaos.arena import make_corpus
from tests.chaos.llm import ENGINES, run_engine_seed
from tests.chaos.seeds import run_seed


def _seeds(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def _out_of_time(_signal: int, _frame: FrameType | None) -> None:
    raise AssertionError("out of time")


def limited(limit_s: int, seed: int, work: Any, *arguments: Any) -> dict[str, Any]:
    """Run one seed with a time limit; an error of the harness itself is a result too."""
    begun = time.monotonic()
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(limit_s)
    try:
        return dict(work(seed, *arguments))
    except Exception as error:
        told = {"failed": f"{type(error).__name__}: {error}"[:2000]}
        return {"seed": seed, "equal": False, "difference": told, "seconds": round(time.monotonic() - begun, 1)}
    finally:
        signal.alarm(0)


def main() -> None:
    """Run the seeds that have no line in the result yet, and print a summary."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=_seeds, required=True, help="as in 0-99")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--engine", choices=["lexicon", *ENGINES], default="lexicon")
    parser.add_argument("--reports", type=int, default=1200, help="phantom reports in the corpus")
    parser.add_argument("--limit", type=int, default=500, help="seconds for one seed")
    given = parser.parse_args()
    lines = given.out.read_text(encoding="utf-8").splitlines() if given.out.exists() else []
    results = [json.loads(line) for line in lines]
    done = {result.get("seed") for result in results}
    with tempfile.TemporaryDirectory(prefix="chaos", dir="/tmp") as name, given.out.open("a", encoding="utf-8") as out:
        if not results:
            out.write(
                json.dumps({"environment": environment(), "engine": given.engine, "reports": given.reports}) + "\n"
            )
        folder = Path(name)
        corpus = make_corpus(folder / "corpus", given.reports)
        for seed in given.seeds:
            if seed in done:
                continue
            work = (run_seed,) if given.engine == "lexicon" else (run_engine_seed, given.engine)
            result = limited(given.limit, seed, work[0], *work[1:], corpus, folder)
            out.write(json.dumps(result) + "\n")
            out.flush()
            results.append(result)
    counted = Counter("equal" if result["equal"] else "different" for result in results if "seed" in result)
    print(json.dumps(dict(counted)))


if __name__ == "__main__":
    main()
