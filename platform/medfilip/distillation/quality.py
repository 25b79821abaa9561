"""How well a student reads: ``python -m medfilip.distillation.quality --model FOLDER --gold FILE [--gate]``.

Gold is a JSON-lines file, or the split ``test`` of a training set. A line holds ``sentences``, pairs of a sentence in
normal form and what it leans on, and ``findings``, the truth of them together: category, certainty and the slots that
are scored. Rules read the same gold, and a student is published only where it is not much worse than they are.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.extraction import ExtractionResult, evaluate_extraction
from medfilip.extraction.engine import OK, SentenceResult

if TYPE_CHECKING:
    from medfilip.distillation.dataset import Row

Asked = tuple[str, str | None]
Read = Callable[[Sequence[Asked]], list[SentenceResult]]
"""Reads sentences in their contexts."""

_NO_LOSS = "certainty_without_cue"
_NO_FINDING = ("mention_not_in_sentence", "empty_mention")


@dataclass(frozen=True)
class Gold:
    """Sentences with the truth of them together; ``phenomenon`` is what they are an example of."""

    sentences: tuple[Asked, ...]
    findings: tuple[Mapping[str, Any], ...]
    phenomenon: str = "given"


class Quality(BaseModel):
    """Scores of one engine on one gold set; shares are in [0, 1].

    Attributes
    ----------
    valid
        Share of the replies that could be used at all.
    grounded
        Share of the stated findings whose mention stands in the sentence.
    kept
        Share of the slots and findings that the sentence carries.
    f1
        Micro F1 of category and certainty together.
    category_f1
        Micro F1 of categories, whatever the certainty.
    phenomena
        F1 of category and certainty within each phenomenon.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    engine: str
    sentences: int
    valid: float
    grounded: float
    kept: float
    f1: float
    category_f1: float
    phenomena: dict[str, float]
    scores: ExtractionResult


class Gate(BaseModel):
    """Least quality of a student that is published."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    valid: float = Field(0.98, ge=0, le=1, description="least share of the replies that can be used at all")
    grounded: float = Field(0.95, ge=0, le=1, description="least share of the findings whose words stand there")
    f1_ratio: float = Field(0.9, ge=0, description="least F1 over that of the reading it is compared with")


def measure(engine: str, read: Read, gold: Sequence[Gold], *, resamples: int = 200, seed: int = 0) -> Quality:
    """Read all sentences of a gold set and score what was found.

    Raises
    ------
    MedfilipError
        ``NOT_ENOUGH_DATA`` without gold.
    """
    asked = [sentence for item in gold for sentence in item.sentences]
    results = read(asked)
    owners = [str(number) for number, item in enumerate(gold) for _ in item.sentences]
    predicted = [
        {**row, "report_id": owner}
        for owner, result in zip(owners, results, strict=True)
        for row in result.findings
    ]  # fmt: skip
    truth = [{**row, "report_id": str(number)} for number, item in enumerate(gold) for row in item.findings]
    names = [str(number) for number in range(len(gold))]
    scores = evaluate_extraction(predicted, truth, names, resamples=resamples, seed=seed)
    notes = [note["reason"] for result in results for note in result.ungrounded if note["reason"] != _NO_LOSS]
    stated = len(predicted) + sum(reason in _NO_FINDING for reason in notes)
    said = len(predicted) + sum(len(row["evidence"]) for row in predicted)
    phenomena = {name: _f1_within(name, gold, predicted, truth) for name in sorted({g.phenomenon for g in gold})}
    return Quality(
        engine=engine,
        sentences=len(asked),
        valid=_share(sum(result.status == OK for result in results), len(results)),
        grounded=_share(len(predicted), stated),
        kept=_share(said, said + len(notes)),
        f1=_value(scores, "certainty"),
        category_f1=_value(scores, "mention"),
        phenomena=phenomena,
        scores=scores,
    )


def require_quality(student: Quality, other: Quality, gate: Gate) -> None:
    """Refuse a student that is below the gate.

    Raises
    ------
    MedfilipError
        ``QUALITY_TOO_LOW``, naming the first number that is too low and its limit.
    """
    ratio = student.f1 / other.f1 if other.f1 else 1.0
    numbers = (
        ("share of valid replies", student.valid, gate.valid),
        ("share of grounded findings", student.grounded, gate.grounded),
        (f"F1 over that of {other.engine}", ratio, gate.f1_ratio),
    )
    for name, value, least in numbers:
        if value < least:
            raise MedfilipError(
                ErrorCode.QUALITY_TOO_LOW,
                f"The student's {name} is {value:.3f} on {student.sentences} sentences, below {least:.3f}.",
                fix="Train longer or on more sentences, or lower the gate knowingly.",
            )


def read_gold(file: Path, *, limit: int | None = None) -> list[Gold]:
    """Read gold from JSON lines, or from the test split of a training set (Parquet).

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND`` without the file; ``REQUEST_INVALID`` for a line that is none of gold.
    """
    if file.suffix == ".parquet":
        return _gold_of_rows(file)[:limit]
    if not file.is_file():
        raise MedfilipError(ErrorCode.INPUT_NOT_FOUND, f"There is no gold file {file}.", fix="Check the path.")
    found: list[Gold] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            data = json.loads(line)
            sentences = tuple((str(text), context) for text, context in data["sentences"])
            found.append(Gold(sentences, tuple(data["findings"]), data.get("phenomenon", "given")))
        except (ValueError, KeyError, TypeError) as error:
            raise MedfilipError(
                ErrorCode.REQUEST_INVALID,
                f"Line {number} of {file} holds no 'sentences' and 'findings'.",
                fix="Give one JSON object a line, as described in medfilip.distillation.quality.",
            ) from error
    return found[:limit]


def _gold_of_rows(file: Path) -> list[Gold]:
    from medfilip.distillation.dataset import TEST
    from medfilip.distillation.row_file import RowFile

    return gold_of_rows([row for row in RowFile(file) if row.split == TEST])


def gold_of_rows(rows: Iterable[Row]) -> list[Gold]:
    """Return what the replies of rows state, as the truth of their sentences."""
    from medfilip.extraction.reply import ReplyReader
    from medfilip.findings.ontology import load_ontology

    reader = ReplyReader(load_ontology())
    return [
        Gold(((row.text, row.context),), tuple(reader.read(row.reply, row.text).findings), row.phenomenon)
        for row in rows
    ]  # fmt: skip


def read_with_rules(asked: Sequence[Asked]) -> list[SentenceResult]:
    """Read sentences with the rule engine."""
    from medfilip.extraction.lexicon import LexiconEngine

    engine = LexiconEngine()
    return [engine.extract(text, context) for text, context in asked]


def _f1_within(
    phenomenon: str, gold: Sequence[Gold], predicted: Sequence[Mapping[str, Any]], truth: Sequence[Mapping[str, Any]]
) -> float:
    """Return F1 of (category, certainty), counted as sets within each item of a phenomenon."""
    own = {str(number) for number, item in enumerate(gold) if item.phenomenon == phenomenon}

    def keys(rows: Sequence[Mapping[str, Any]]) -> set[tuple[str, str, str]]:
        return {(r["report_id"], r["category"], str(r["certainty"])) for r in rows if r["report_id"] in own}

    found, true = keys(predicted), keys(truth)
    return _share(2 * len(found & true), len(found) + len(true))


def _value(scores: ExtractionResult, slot: str) -> float:
    f1 = scores.slots[slot].f1
    return 1.0 if f1 is None else f1.value


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Score a student beside the rules, and with ``--gate`` refuse one that is too bad."""
    options = _parser().parse_args(arguments)
    try:
        _score(options)
    except MedfilipError as error:
        sys.stderr.write(f"error [{error.code}] {error}\n")
        return 1
    return 0


def _score(options: argparse.Namespace) -> None:
    import torch

    from medfilip.distillation.card import add_metrics
    from medfilip.distillation.replying import StudentEngine

    gold = read_gold(options.gold, limit=options.limit)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    engine = StudentEngine.load(options.model, device=device, batch_size=options.batch, copying=not options.free)
    student, rules = measure("student", engine.extract_many, gold), measure("rules", read_with_rules, gold)
    names = ("valid", "grounded", "kept", "f1", "category_f1")
    for name in names:
        sys.stdout.write(f"{name:24s} student {getattr(student, name):.4f}   rules {getattr(rules, name):.4f}\n")
    for slot in student.scores.slots:
        one, two = _value(student.scores, slot), _value(rules.scores, slot)
        sys.stdout.write(f"  slot {slot:19s} student {one:.4f}   rules {two:.4f}\n")
    for name, value in student.phenomena.items():
        sys.stdout.write(f"  {name:24s} student {value:.4f}   rules {rules.phenomena[name]:.4f}\n")
    if options.out:
        content = {"gold": options.gold.name, "student": student.model_dump(), "rules": rules.model_dump()}
        options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if options.card:
        add_metrics(options.model, {f"{options.card} {name}": getattr(student, name) for name in names})
    if options.gate:
        require_quality(student, rules, Gate(**json.loads(options.gate)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m medfilip.distillation.quality", description=__doc__.splitlines()[0]
    )  # fmt: skip
    parser.add_argument("--model", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--gold", required=True, type=Path, metavar="FILE", help="JSON lines, or a training set")
    parser.add_argument("--limit", type=int, help="items to read at most")
    parser.add_argument("--batch", type=int, default=256, help="sentences replied to at once")
    parser.add_argument("--free", action="store_true", help="let it write any words, not only quote the sentence")
    parser.add_argument("--device", help="cpu or cuda (default: what there is)")
    parser.add_argument("--out", type=Path, metavar="JSON", help="where all scores go")
    parser.add_argument("--card", metavar="NAME", help="name of the gold set under which the card gets the scores")
    parser.add_argument("--gate", metavar="JSON", help="limits such as '{}' or '{\"f1_ratio\": 0.9}'")
    return parser


if __name__ == "__main__":
    sys.exit(main())
