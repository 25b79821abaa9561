"""Writes the challenge set as gold for a student: ``python -m tests.challenge.gold OUT.jsonl``.

A text of the set may be several sentences; slots that may hold anything are left out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medfilip.reports.sections import Section
from medfilip.reports.sentences import report_sentences
from tests.challenge.scoring import ANY, read_challenges


def gold_lines() -> Iterator[dict[str, Any]]:
    """Yield the lines."""
    for challenge in read_challenges():
        sentences = report_sentences(challenge.text, [Section("findings", 0, len(challenge.text))])
        findings = [
            {
                "category": item.category,
                "certainty": item.certainty,
                **{name: _plain(value) for name, value in item.slots.items() if value is not ANY},
            }
            for item in challenge.expected
        ]
        yield {
            "sentences": [[one.text, one.context] for one in sentences],
            "findings": findings,
            "phenomenon": challenge.phenomenon,
        }


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, frozenset) else value


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("".join(json.dumps(line) + "\n" for line in gold_lines()), encoding="utf-8")
