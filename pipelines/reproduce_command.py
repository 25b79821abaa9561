"""``medfilip reproduce``: a run again from its manifest, and what differs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.guard import guarded

if TYPE_CHECKING:
    from pipelines.reproduce import Reproduction


def reproduce(
    run: Annotated[str, typer.Argument(help="A published run.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[JOB.KEY=VALUE]...",
            show_default=False,
            help="Settings, such as the places of inputs that are no runs.",
        ),
    ] = None,
    root: Annotated[str, typer.Option(help="Where the new runs are written.")] = "runs/reproduced",
    search: Annotated[
        list[str] | None, typer.Option(help="Further folders of runs in which inputs are looked for.")
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Reproduce the inputs first, and theirs.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Run a published run again from its manifest alone, and list what differs; exit code 3 if anything does."""

    def work() -> None:
        from medfilip.storage.location import Location
        from medfilip.storage.manifest import run_folder
        from pipelines.reproduce import Reproducer

        original = run_folder(run)
        places = [original.parent.parent, *(Location.parse(place) for place in search or [])]
        done = Reproducer(Location.parse(root), places, overrides or [], deep=deep).work(original)
        show(done, Console(highlight=False))
        if not done.same:
            sys.exit(3)

    guarded(work, debug=debug)


def show(done: Reproduction, console: Console) -> None:
    """Print a reproduction, its inputs first."""
    for item in done.inputs:
        show(item, console)
    state = "[green]the same[/]" if not done.differences else f"[yellow]{len(done.differences)} differences[/]"
    console.print(f"[bold]{done.job}[/]  {escape(done.original)}\n  → {escape(done.location)}: {state}", soft_wrap=True)
    for place in done.taken:
        console.print(f"  [dim]from {escape(place)}, as it is[/]", soft_wrap=True)
    if done.code_changed:
        console.print("  [dim]Other code than the one that published it: what differs may be meant.[/]")
    table = Table(box=None, padding=(0, 2, 0, 2))
    for name in ("metric", "before", "now"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for name, values in done.metrics.items():
        table.add_row(name.replace("_", " "), *("–" if value is None else f"{value:.6g}" for value in values))
    if done.metrics:
        console.print(table)
    for difference in done.differences:
        console.print(f"  [yellow]{escape(difference.what)}: {escape(difference.before)} → {escape(difference.now)}[/]")
