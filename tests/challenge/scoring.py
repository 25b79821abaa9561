"""Reads the challenge set and scores an engine on it, phenomenon by phenomenon."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medfilip.extraction.engine import Engine
from medfilip.reports.sections import Section
from medfilip.reports.sentences import report_sentences

SENTENCES = Path(__file__).parent / "sentences.txt"
_CERTAINTIES = {"+": "present", "-": "absent", "?": "uncertain"}
_NAMES = {"side": "laterality"}
_CLOSED = ("severity", "size", "size_mm", "laterality", "sites")
ANY = object()


@dataclass(frozen=True)
class Expected:
    """A finding as the truth states it: slots that must match, `ANY` where anything may stand."""

    category: str
    certainty: str
    slots: dict[str, Any]

    def fits(self, row: dict[str, Any]) -> bool:
        """Whether a row of an engine is this finding."""
        if (row["category"], row["certainty"]) != (self.category, self.certainty):
            return False
        return all(value is ANY or _value(row[name]) == value for name, value in self.slots.items())


@dataclass(frozen=True)
class Challenge:
    """A sentence, the phenomenon it stands for, and its whole truth."""

    phenomenon: str
    text: str
    expected: tuple[Expected, ...]

    def solved_by(self, engine: Engine) -> bool:
        """Whether an engine finds exactly what the truth states."""
        rows = find(engine, self.text)
        if len(rows) != len(self.expected):
            return False
        open_rows = list(rows)
        for wanted in self.expected:
            match = next((row for row in open_rows if wanted.fits(row)), None)
            if match is None:
                return False
            open_rows.remove(match)
        return True


def find(engine: Engine, text: str) -> list[dict[str, Any]]:
    """Return the findings of a text the way a report is read: by sentences, with their context."""
    sentences = report_sentences(text, [Section("findings", 0, len(text))])
    return [row for s in sentences for row in engine.extract(s.text, s.context).findings]


def read_challenges(file: Path = SENTENCES) -> Iterator[Challenge]:
    """Yield the sentences of the set in the order of the file."""
    phenomenon = ""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            phenomenon = line.removeprefix("## ")
        elif "=>" in line and not line.startswith("# "):
            text, _, truth = line.rpartition("=>")
            findings = tuple(_parse(part) for part in truth.split(";") if part.strip())
            yield Challenge(phenomenon, text.strip(), findings)


def accuracy(engine: Engine) -> dict[str, tuple[int, int]]:
    """Return (solved, sentences) of each phenomenon."""
    scores: dict[str, tuple[int, int]] = {}
    for challenge in read_challenges():
        solved, count = scores.get(challenge.phenomenon, (0, 0))
        scores[challenge.phenomenon] = (solved + challenge.solved_by(engine), count + 1)
    return scores


def _parse(text: str) -> Expected:
    category, certainty, *given = text.split()
    slots: dict[str, Any] = dict.fromkeys(_CLOSED)
    slots["sites"] = frozenset()
    for item in given:
        name, _, value = item.partition("=")
        slots[_NAMES.get(name, name)] = _read(name, value) if value else ANY
    return Expected(category, _CERTAINTIES[certainty], slots)


def _read(name: str, value: str) -> Any:
    if name == "sites":
        return frozenset(value.split(","))
    return float(value) if name == "size_mm" else value


def _value(value: Any) -> Any:
    return frozenset(value) if isinstance(value, list) else value
