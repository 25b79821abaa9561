"""Prints how many sentences of each phenomenon the rules solve, and with ``-v`` those they do not.

Usage: ``python -m tests.challenge.report [-v]``.
"""

from __future__ import annotations

import sys

from medfilip.extraction.lexicon import LexiconEngine
from tests.challenge.scoring import accuracy, find, read_challenges

_SHOWN = ("severity", "size", "size_mm", "laterality", "sites", "change", "position")


def main() -> None:
    """Print the table."""
    engine = LexiconEngine()
    scores = accuracy(engine)
    for phenomenon, (solved, count) in scores.items():
        print(f"{phenomenon:36s} {solved:3d} of {count:3d}  {solved / count:.2f}")
    solved, count = (sum(column) for column in zip(*scores.values(), strict=True))
    print(f"{'all':36s} {solved:3d} of {count:3d}  {solved / count:.3f}")
    if "-v" in sys.argv:
        for challenge in read_challenges():
            if not challenge.solved_by(engine):
                rows = find(engine, challenge.text)
                found = [[r["category"], r["certainty"], {s: r[s] for s in _SHOWN if r[s]}] for r in rows]
                print(f"[{challenge.phenomenon}] {challenge.text}\n    {challenge.expected}\n    {found}")


if __name__ == "__main__":
    main()
