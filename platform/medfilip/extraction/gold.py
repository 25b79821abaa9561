"""Sentences whose findings a person accepted or corrected: what evaluation measures by and students learn from.

A gold file is JSON Lines, one decision a line, written to the disk before the next sentence is shown. It is only ever
appended to; of several decisions about one sentence the last one counts. It quotes reports: keep it where they lie.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.extraction.routing import CATEGORY, CERTAINTY, SIDE
from medfilip.findings.finding import Finding
from medfilip.storage.location import Location

_PRIVATE = 0o600
_COST = {CATEGORY: 3, CERTAINTY: 2, SIDE: 1}
"""How much a wrong reading of each kind changes what a model is taught: another finding, its opposite, another side."""


class Choice(StrEnum):
    """Whose reading a person took."""

    RULES = "rules"
    MODEL = "model"
    NEITHER = "neither"
    """The person's own."""


class GoldSentence(BaseModel):
    """One decision.

    Attributes
    ----------
    sentence_id, text, context
        As in ``sentences``.
    findings
        With evidence spans into ``text``.
    choice
        Whose they are.
    engine
        The model that was compared with the rules.
    reviewer
        Who decided, as they named themselves.
    decided_at
        When, with its time zone.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sentence_id: int
    text: str = Field(min_length=1)
    context: str | None = None
    findings: tuple[Finding, ...]
    choice: Choice
    engine: str = ""
    reviewer: str = ""
    decided_at: datetime


def read_gold(file: Location) -> list[GoldSentence]:
    """Read the decisions that count, in the order of sentence ids.

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND``, or ``GOLD_INVALID`` with the number of the line; no text of it is quoted.
    """
    if not file.exists() or file.is_dir():
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND, f"There is no gold file {file}.", fix="Make one with: medfilip review RUN."
        )
    kept: dict[int, GoldSentence] = {}
    lines = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            decision = GoldSentence.model_validate_json(line)
        except ValidationError as error:
            if number == len(lines):
                continue  # a line without its end: the decision that a kill cut off was never confirmed
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the line"
            raise MedfilipError(
                ErrorCode.GOLD_INVALID,
                f"Line {number} of {file} is no decision: {where}: {first['type']}.",
                fix="Mend or remove the line.",
            ) from None
        kept[decision.sentence_id] = decision
    return [kept[key] for key in sorted(kept)]


def append_gold(file: Path, decision: GoldSentence) -> None:
    """Write a decision to the end of a gold file; when this returns, it is on the disk.

    What a kill cut off in the middle of a line was never confirmed, and goes.
    """
    line = json.dumps(decision.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":")) + "\n"
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, _PRIVATE), "r+b") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # another reviewer may write as well
        whole = stream.read().rfind(b"\n") + 1
        stream.seek(whole)
        stream.truncate()
        stream.write(line.encode())
        stream.flush()
        os.fsync(stream.fileno())


def worth(row: Mapping[str, Any]) -> int:
    """Return how much a person's minute is worth at an entry of the review queue: what it costs, times how often."""
    return int(row["count"]) * sum(_COST[kind] for kind in row["kinds"])


def most_worth_first(queue: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the entries of a review queue, most worth a person's minute first; equal ones by their id."""
    return sorted(queue, key=lambda row: (-worth(row), row["sentence_id"]))
