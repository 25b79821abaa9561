"""``medfilip review``: a person looks at the sentences that rules and model read differently, most worth it first.

Every decision is on the disk before the next sentence is shown; who stops goes on where they were. What is decided is
gold: ``medfilip evaluate extraction truth=GOLD`` measures by it, and ``medfilip distill gold=GOLD`` learns from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.extraction.engine import OK, FindingRow
from medfilip.extraction.gold import Choice, GoldSentence, append_gold, most_worth_first, read_gold, worth
from medfilip.extraction.names import Names
from medfilip.extraction.reply import ReplyReader
from medfilip.extraction.reply_writer import reply_of
from medfilip.findings.finding import Finding
from medfilip.findings.ontology import load_ontology
from medfilip.storage.location import Location
from medfilip.storage.manifest import read_manifest, run_folder
from medfilip.storage.shards import iter_shards, read_dataset
from pipelines.console import as_typed

_KEYS = (
    "[b]r[/] rules are right   [b]m[/] model is right   [b]n[/] no finding   [b]e[/] write it   "
    "[b]s[/] skip   [b]u[/] undo   [b]q[/] stop"
)
_HOW = (
    "One finding a line: words of the sentence; yes, no or maybe; then what else it says, as in\n"
    "  pneumothorax; yes; tiny; right; apical; new          fluid; no; =pleural effusion\n"
    "Words that are no standard name are followed by = and one. An empty line ends it."
)
_REASONS = {"doubt": "rules doubt it", "audit": "drawn to check the rules"}

Ask = Callable[[str], str]
"""Shows a prompt and returns a line; raises `EOFError` at the end of the input."""


@dataclass(frozen=True)
class Entry:
    """An entry of the review queue with its sentence.

    Attributes
    ----------
    row
        Of ``review_queue``.
    text, context
        Of ``sentences``.
    """

    row: Mapping[str, Any]
    text: str
    context: str | None


def review(findings: str, gold: Path, *, reviewer: str = "", limit: int | None = None, ask: Ask | None = None) -> None:
    """Show what is left of the queue of an extract run, and write what is decided to ``gold``.

    Raises
    ------
    MedfilipError
        ``NOT_ENOUGH_DATA`` if the run has no queue; ``GOLD_INVALID`` if the file is no gold file.
    """
    console = Console(highlight=False)
    entries = open_entries(findings)
    decided = {item.sentence_id for item in read_gold(Location.parse(str(gold)))} if gold.exists() else set()
    left = [entry for entry in entries if entry.row["sentence_id"] not in decided][:limit]
    counts = f"{len(entries)} sentences are read differently; {len(decided & _ids(entries))} of them are decided"
    console.print(f"{counts}. Decisions go to {gold}, which quotes reports.")
    if not left:
        console.print("Nothing is left to review.")
        return
    done = _Session(console, ask or console.input, gold, reviewer).run(left)
    console.print(f"{done} decided, {len(left) - done} left.")
    if done:
        console.print(
            f"next: {as_typed(f'medfilip evaluate extraction findings={findings} truth={gold}')}", soft_wrap=True
        )


def open_entries(findings: str) -> list[Entry]:
    """Return the queue of an extract run, most worth a person's minute first.

    Raises
    ------
    MedfilipError
        ``NOT_ENOUGH_DATA`` if the run has none.
    """
    run = run_folder(findings)
    manifest = read_manifest(run)
    if "review_queue" not in manifest.datasets:
        raise MedfilipError(
            ErrorCode.NOT_ENOUGH_DATA,
            "The run has no review queue: only rules and a model together fill one.",
            fix="Extract with engine=auto.",
        )
    queue = most_worth_first(read_dataset(run, manifest, "review_queue").to_pylist())
    wanted = {row["sentence_id"] for row in queue}
    texts: dict[int, tuple[str, str | None]] = {}
    for shard in iter_shards(run, manifest, "sentences"):
        asked = shard.filter(pc.is_in(shard["sentence_id"], value_set=_array(wanted)))
        for row in asked.select(["sentence_id", "text", "context"]).to_pylist():
            texts[row["sentence_id"]] = row["text"], row["context"]
    return [Entry(row, *texts[row["sentence_id"]]) for row in queue]


def written_findings(lines: Iterable[str], sentence: str, reader: ReplyReader) -> list[FindingRow]:
    """Read findings as a person writes them, by the rules that a model's reply is read by.

    Raises
    ------
    MedfilipError
        ``GOLD_INVALID`` with what the sentence does not carry.
    """
    items = [[part.strip() for part in line.split(";") if part.strip()] for line in lines]
    result = reader.read(json.dumps({"f": items}), sentence)
    if result.status != OK:
        raise MedfilipError(
            ErrorCode.GOLD_INVALID, "A line is not: words; yes, no or maybe; and what else it says.", fix=_HOW
        )
    if result.ungrounded:
        wrong = "; ".join(f"{note['mention']}: {note['reason'].replace('_', ' ')}" for note in result.ungrounded)
        raise MedfilipError(ErrorCode.GOLD_INVALID, f"{wrong}.", fix="Copy the words from the sentence.")
    return result.findings


class _Session:
    """One sitting of a reviewer."""

    def __init__(self, console: Console, ask: Ask, gold: Path, reviewer: str) -> None:
        self._console, self._ask, self._gold, self._reviewer = console, ask, gold, reviewer
        ontology = load_ontology()
        self._reader, self._names = ReplyReader(ontology), Names(ontology)

    def run(self, entries: Sequence[Entry]) -> int:
        """Ask about entries until they or the reviewer's patience end; return how many are decided."""
        decided: set[int] = set()
        at, before = 0, list[int]()
        try:
            while at < len(entries):
                self._show(entries[at], at, len(entries))
                match self._decision(entries[at]):
                    case "q":
                        break
                    case "u":
                        at = before.pop() if before else at
                        continue
                    case GoldSentence() as decision:
                        append_gold(self._gold, decision)
                        decided.add(decision.sentence_id)
                before.append(at)
                at += 1
        except EOFError:
            self._console.print()
        return len(decided)

    def _decision(self, entry: Entry) -> GoldSentence | str:
        """Ask until the answer is one; ``s``, ``u`` and ``q`` decide nothing."""
        while True:
            self._console.print(_KEYS)
            key = self._ask("> ").strip().lower()[:1]
            if key in ("s", "u", "q"):
                return key
            try:
                match key:
                    case "r":
                        return self._gold_of(entry, entry.row["rules"], Choice.RULES)
                    case "m":
                        return self._gold_of(entry, entry.row["model"], Choice.MODEL)
                    case "n":
                        return self._gold_of(entry, [], Choice.NEITHER)
                    case "e":
                        return self._gold_of(entry, self._written(entry.text), Choice.NEITHER)
            except MedfilipError as error:
                self._console.print(Text(str(error), style="red"))

    def _written(self, sentence: str) -> list[FindingRow]:
        self._console.print(Text(_HOW, style="dim"))
        lines: list[str] = []
        while line := self._ask("finding: ").strip():
            lines.append(line)
        return written_findings(lines, sentence, self._reader)

    def _gold_of(self, entry: Entry, rows: Sequence[FindingRow], choice: Choice) -> GoldSentence:
        return GoldSentence(
            sentence_id=entry.row["sentence_id"],
            text=entry.text,
            context=entry.context,
            findings=tuple(Finding.from_row(row) for row in rows),
            choice=choice,
            engine=entry.row["engine"],
            reviewer=self._reviewer,
            decided_at=datetime.now(UTC),
        )

    def _show(self, entry: Entry, at: int, count: int) -> None:
        row = entry.row
        body = Text()
        if entry.context:
            body.append(f"… {entry.context}\n", style="dim")
        body.append(entry.text, style="bold")
        doubts = ", ".join(doubt.replace("_", " ") for doubt in row["doubts"] or ())
        why = f"{_REASONS.get(row['reason'], row['reason'])}{f' ({doubts})' if doubts else ''}"
        title = f"{at + 1} of {count} · stands {row['count']:,} times · worth {worth(row):,}"
        self._console.print(Panel(body, title=title, title_align="left", subtitle=why, subtitle_align="left"))
        table = Table(box=None, expand=True, padding=(0, 2, 0, 1))
        for name, rows in (("rules", row["rules"]), ("model", row["model"])):
            table.add_column(f"{name}: {len(rows) or 'no'} finding{'' if len(rows) == 1 else 's'}", ratio=1)
        table.add_row(self._told(entry.text, row["rules"]), self._told(entry.text, row["model"]))
        self._console.print(table)
        self._console.print(f"[dim]They differ in {' and '.join(row['kinds'])}.[/]")

    def _told(self, sentence: str, rows: Sequence[FindingRow]) -> Text:
        """Tell findings one a line, as they would be written."""
        lines = Text()
        for row, item in zip(rows, reply_of(sentence, rows, self._names).f, strict=False):
            label = self._names.ontology.label(row["category"]).lower()
            style = {"present": "red", "absent": "green"}.get(str(row["certainty"]), "yellow")
            lines.append(f"{label} ", style=style)
            _, *rest = json.loads(item.model_dump_json())  # a list in JSON, whatever the model's type says
            lines.append(f"{'; '.join(rest)}\n")
        return lines


def _ids(entries: Iterable[Entry]) -> set[int]:
    return {entry.row["sentence_id"] for entry in entries}


def _array(values: Iterable[int]) -> Any:
    import pyarrow as pa

    return pa.array(sorted(values), pa.int64())
