"""How familiar real sentences look from a synthetic corpus: ``python -m medfilip.distillation.coverage --help``.

Shares of words and of word pairs and triples of given sentences that occur in the synthetic ones, and rates of
phenomena in both. Given sentences are only compared with; nothing of them goes anywhere but into these numbers and, on
request, into a list of the frequent word groups that are missing, printed for the reader of the corpus alone.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from medfilip.extraction.words import NUMBER, fold, tokens

ORDERS = (1, 2, 3)
_PLACEHOLDER = re.compile(r"x{3,}|_+")

PHENOMENA: dict[str, re.Pattern[str]] = {
    name: re.compile(pattern)
    for name, pattern in {
        "negation": r"\b(?:no|not|without|free of|negative|nor|neither|absen\w+|clear of)\b",
        "normality": r"\b(?:normal|unremarkable|intact|clear|within normal limits|midline)\b",
        "hedge": r"\b(?:may|might|could|possibl[ey]|probabl[ey]|likely|versus|vs|suggest\w*|suspicious|questionable"
        r"|cannot|consistent with|compatible with|represent\w*|concerning)\b",
        "list": r",.*\b(?:and|or)\b|,.*,",
        "change": r"\b(?:new|unchanged|stable|interval|increas\w+|decreas\w+|resol\w+|improv\w+|worse\w*|again"
        r"|persist\w*|change|prior|previous\w*)\b",
        "measure": r"\d\s*(?:mm|cm)\b",
        "device": r"\b(?:tubes?|catheters?|lines?|picc|port|pacemaker|leads?|wires?|clips?|sternotomy|device|stent)\b",
        "side": r"\b(?:left|right|bilateral\w*|both|bibasilar|biapical)\b",
        "placeholder": r"\bx{3,}\b|_{2,}",
        "degree": r"\b(?:mild\w*|moderate\w*|severe\w*|small|large|minimal\w*|slight\w*|tiny|trace|marked\w*)\b",
    }.items()
}


class Side(BaseModel):
    """A corpus: sentences, their mean number of words, and the share of them that show each phenomenon."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sentences: int
    words: float
    rates: dict[str, float]


class Coverage(BaseModel):
    """What of given sentences a synthetic corpus knows.

    Attributes
    ----------
    covered
        For words, pairs and triples: share of those in the given sentences, each as often as it occurs, that the
        synthetic corpus has.
    familiar
        Share of the given sentences whose every pair of words it has.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    synthetic: Side
    given: Side
    covered: dict[int, float]
    familiar: float


@dataclass(frozen=True)
class Groups:
    """Word groups of a corpus: words, pairs and triples, with the two ends of a sentence as words."""

    counts: dict[int, Counter[tuple[str, ...]]]


def words_of(sentence: str) -> list[str]:
    """Return the folded words of a sentence, numbers and removed words made alike."""
    found = [NUMBER if word[0].isdigit() else fold(word) for word in tokens(sentence.lower())]
    return ["xxxx" if _PLACEHOLDER.fullmatch(word) else word for word in found]


def group_sentences(sentences: Iterable[str]) -> Groups:
    """Count the word groups of sentences."""
    counts: dict[int, Counter[tuple[str, ...]]] = {order: Counter() for order in ORDERS}
    for sentence in sentences:
        words = words_of(sentence)
        for order in ORDERS:
            counts[order].update(_groups(words, order))
    return Groups(counts)


def compare(synthetic: Sequence[str], given: Sequence[str]) -> tuple[Coverage, dict[int, list[tuple[str, int]]]]:
    """Compare two corpora; return the numbers, and the most frequent groups of the given one that are missing."""
    known, wanted = group_sentences(synthetic), group_sentences(given)
    covered, missing = {}, {}
    for order in ORDERS:
        total = sum(wanted.counts[order].values())
        lacking = Counter({k: n for k, n in wanted.counts[order].items() if k not in known.counts[order]})
        covered[order] = 1 - sum(lacking.values()) / total if total else 1.0
        missing[order] = [(" ".join(group), number) for group, number in lacking.most_common(200)]
    pairs = known.counts[2]
    familiar = sum(all(group in pairs for group in _groups(words_of(text), 2)) for text in given)
    result = Coverage(
        synthetic=_side(synthetic), given=_side(given), covered=covered, familiar=familiar / max(1, len(given))
    )
    return result, missing


def _groups(words: Sequence[str], order: int) -> Iterator[tuple[str, ...]]:
    padded = ["<", *words, ">"] if order > 1 else list(words)
    return zip(*(padded[start:] for start in range(order)), strict=False)


def _side(sentences: Sequence[str]) -> Side:
    count = max(1, len(sentences))
    rates = {name: sum(bool(p.search(text)) for text in sentences) / count for name, p in PHENOMENA.items()}
    return Side(sentences=len(sentences), words=sum(len(tokens(text)) for text in sentences) / count, rates=rates)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the numbers."""
    import pyarrow.parquet as pq

    parser = argparse.ArgumentParser(prog="python -m medfilip.distillation.coverage")
    parser.add_argument("--data", type=Path, required=True, help="training set")
    parser.add_argument("--sentences", type=Path, required=True, help="Parquet file with a column 'text'")
    parser.add_argument("--missing", type=int, default=0, help="missing word groups to print of each length")
    options = parser.parse_args(arguments)
    synthetic, given = (
        pq.read_table(f, columns=["text"])["text"].to_pylist() for f in (options.data, options.sentences)
    )
    result, missing = compare(synthetic, given)
    sys.stdout.write(
        f"covered { ({k: round(v, 4) for k, v in result.covered.items()}) }  familiar {result.familiar:.4f}\n"
    )
    sys.stdout.write(f"{'':14s} synthetic    given\n")
    sys.stdout.write(f"{'sentences':14s} {result.synthetic.sentences:9d} {result.given.sentences:8d}\n")
    sys.stdout.write(f"{'words':14s} {result.synthetic.words:9.2f} {result.given.words:8.2f}\n")
    for name in PHENOMENA:
        sys.stdout.write(f"{name:14s} {result.synthetic.rates[name]:9.3f} {result.given.rates[name]:8.3f}\n")
    for order in ORDERS if options.missing else ():
        shown = ", ".join(f"{group} ({number})" for group, number in missing[order][: options.missing])
        sys.stdout.write(f"missing {order}: {shown}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
