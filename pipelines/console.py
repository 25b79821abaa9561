"""What jobs print: tables of settings and summaries of runs, readable in a terminal of 100 columns."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from medfilip.core.settings import ENVIRONMENT_PREFIX, Settings, known_keys

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pipelines.job import Outcome

_STAGES_SHOWN = 8
_FAMILIES = ("ungrounded",)
"""First words of counts that are reasons of one thing, and are told in one row."""


def as_typed(command: str) -> str:
    """Write a ``medfilip …`` command as it can be typed in this shell: with its path if it is not on the PATH."""
    program, _, rest = command.partition(" ")
    return f"{program if shutil.which(program) else sys.argv[0]} {rest}"


def settings_table(model: type[Settings], job: str) -> RenderableType:
    """Return key, default and meaning of every setting of a job."""
    table = Table(title="Settings", title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 1))
    table.add_column("key", style="cyan", no_wrap=True)
    table.add_column("default", style="dim", max_width=22, overflow="fold")
    table.add_column("meaning", overflow="fold")
    # What is a job's own comes first, what is the same for every job last.
    shared = {
        name: at
        for at, kind in reversed(list(enumerate(model.__mro__)))
        for name in vars(kind).get("__annotations__", {})
    }
    for key, default, meaning in sorted(known_keys(model), key=lambda item: shared[item[0].partition(".")[0]]):
        table.add_row(key, escape(default), escape(meaning))
    prefix = f"{ENVIRONMENT_PREFIX}_{job.upper()}__"
    note = f"Defaults < --config FILE < environment ({prefix}KEY, {prefix}KEY__SUBKEY) < key=value."
    return Group(table, "", note)


def _times(seconds: Mapping[str, float]) -> str:
    """Tell the stages, or their sum where there are too many to be read: an ablation has one for every arm."""
    if len(seconds) > _STAGES_SHOWN:
        return f"{sum(seconds.values()):.1f} s in {len(seconds)} stages"
    return "  ".join(f"{name} {value:.1f} s" for name, value in seconds.items())


def _counts(counts: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Yield the rows of counts; of a family there is one row, where its first member stands."""
    for name, count in counts.items():
        family = name.partition("_")[0]
        if family not in _FAMILIES:
            yield name.replace("_", " "), f"{count:,}"
            continue
        members = {other: n for other, n in counts.items() if other.startswith(f"{family}_")}
        if name == next(iter(members)):
            ranked = sorted(members.items(), key=lambda item: -item[1])
            yield family, ", ".join(f"{n:,} × {other.removeprefix(f'{family}_')}" for other, n in ranked)


def print_outcome(job: str, outcome: Outcome) -> None:
    """Print what a run published, what it refused and why, and what to do next."""
    manifest = outcome.manifest
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, entry in manifest.datasets.items():
        if name != "rejected":  # told below, by reason
            shards = len(entry.shards)
            table.add_row(name, f"{entry.rows:,} rows in {shards} shard{'s' * (shards != 1)}")
    for name, told in _counts({name: n for name, n in manifest.counts.items() if name not in manifest.datasets}):
        table.add_row(name, told)
    for code, count in manifest.rejected.items():
        table.add_row("rejected", f"{count:,} × {code}", style="yellow")
    for name, value in manifest.metrics.items():
        table.add_row(name.replace("_", " "), f"{value:.3f}")
    for file in manifest.files:
        if "/" not in file.path:
            table.add_row("wrote", file.path)
    table.add_row("time", _times(manifest.seconds) or "–")
    state = "had already finished; nothing to do (--new-run starts another)" if outcome.already_finished else "finished"
    console = Console(highlight=False)
    console.print(Panel(table, title=f"{job} {state}", title_align="left", expand=False))
    # Outside the frame, unbroken: it is copied into the next command.
    console.print(f"run:  {escape(outcome.location)}", soft_wrap=True)
    for step in outcome.next_steps:
        command = as_typed(step) if step.startswith("medfilip ") else step
        console.print(f"next: [cyan]{escape(command)}[/]", soft_wrap=True)
