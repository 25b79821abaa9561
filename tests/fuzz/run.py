"""Feed the reader mutated files by the thousand, and tell outcomes, time and memory.

    python -m tests.fuzz.run --count 100000 --seed 1 [--grow]

Files whose outcome is new are damaged further; with ``--grow`` they are added to ``seeds.json``.
"""

import argparse
import json
import resource
import time
from collections import Counter
from pathlib import Path

import numpy as np

from medfilip.imaging.isolation import IsolatedDecoder
from tests.benchmarks.environment import write_result
from tests.fuzz.judge import LIMITS, judge
from tests.fuzz.mutation import Recipe, bases

SEEDS = Path(__file__).with_name("seeds.json")
_MAX_DEPTH = 12


def read_seeds() -> list[tuple[Recipe, str]]:
    """Return the kept recipes, each with the outcome for which it was kept."""
    return [
        (Recipe(entry["base"], tuple(entry["seeds"])), entry["outcome"])
        for entry in json.loads(SEEDS.read_text(encoding="utf-8"))
    ]


def run(count: int, seed: int, known: list[tuple[Recipe, str]]) -> tuple[Counter[str], list[tuple[Recipe, str]], float]:
    """Judge mutated files; return outcomes, recipes of new ones, and the longest time of one in seconds."""
    rng = np.random.default_rng(seed)
    corpus = [Recipe(name, ()) for name in bases()] + [recipe for recipe, _ in known]
    seen = {outcome for _, outcome in known}
    outcomes: Counter[str] = Counter()
    found: list[tuple[Recipe, str]] = []
    longest = 0.0
    with IsolatedDecoder(LIMITS) as decoder:
        for _ in range(count):
            parent = corpus[int(rng.integers(len(corpus)))]
            damages = tuple(int(one) for one in rng.integers(0, 2**31, int(rng.geometric(0.5))))
            recipe = Recipe(parent.base, (*parent.seeds, *damages)[-_MAX_DEPTH:])
            outcome = judge(recipe.make(), decoder)
            outcomes[outcome.kind.partition(":")[0]] += 1
            longest = max(longest, outcome.seconds)
            if outcome.kind not in seen:
                seen.add(outcome.kind)
                corpus.append(recipe)
                found.append((recipe, outcome.kind))
    return outcomes, found, longest


def main() -> None:
    """Run, print, and write a JSON beside it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--grow", action="store_true", help="add files with new outcomes to seeds.json")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    known = read_seeds() if SEEDS.exists() else []
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes, found, longest = run(options.count, options.seed, known)
    figures = {
        "inputs": options.count,
        "seconds": round(time.monotonic() - start, 1),
        "longest_s": round(longest, 3),
        "peak_mb_before": before // 1024,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "peak_mb_of_workers": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024,
        "new_outcomes": len(found),
        "outcomes": dict(outcomes.most_common()),
    }
    write_result(options.out, figures)
    if options.grow:
        kept = [*known, *found]
        lines = [json.dumps({"base": r.base, "seeds": list(r.seeds), "outcome": o}) for r, o in kept]
        SEEDS.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
