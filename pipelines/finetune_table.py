"""The table of a fine-tuning: a row for each mode and initialisation, a column for each share of labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_TITLES = {
    "probe": "linear probe, mean AUROC",
    "full": "full fine-tuning, mean AUROC",
    "segment": "segmentation, Dice where there is a lesion",
}
_WIDTH = 100


def print_table(result: Mapping[str, Any], console: Console | None = None) -> None:
    """Print ``transfer.json`` in at most 100 columns."""
    out = console or Console(highlight=False, width=min(Console().width, _WIDTH))
    for mode in dict.fromkeys(row["mode"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["mode"] == mode]
        out.print(_table(_TITLES[mode], rows, "value"))
        if mode == "segment":
            out.print(_table("segmentation, Dice over all images (empty and unmarked: 1)", rows, "dice_all"))
        if any(row["over_random"] for row in rows):
            compared = [row for row in rows if row["over_random"]]
            out.print(_table("more than from random weights", compared, "over_random", signed=True))
    for one in result["absent"]:
        out.print(f"[yellow]{one['init']}[/] not measured: {escape(one['reason'])}")
    out.print("[dim]In brackets: 95 % intervals over test patients. Steps and strengths chosen on validation.[/]")


def _table(title: str, rows: Sequence[Mapping[str, Any]], key: str, *, signed: bool = False) -> Table:
    fractions = sorted({row["fraction"] for row in rows})
    images = {row["fraction"]: row["runs"][0]["images"] for row in rows}
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1))
    table.add_column("begins with", no_wrap=True)
    for fraction in fractions:
        table.add_column(f"{100 * fraction:g} % ({images[fraction]:,})", justify="right", overflow="fold")
    for init in dict.fromkeys(row["init"] for row in rows):
        found = {row["fraction"]: row[key] for row in rows if row["init"] == init}
        table.add_row(init, *(_number(found.get(fraction), signed=signed) for fraction in fractions))
    return table


def _number(value: Mapping[str, Any] | None, *, signed: bool) -> str:
    if value is None:
        return "–"
    middle, low, high = (_plain(value[name], signed=signed) for name in ("value", "low", "high"))
    return escape(f"{middle} [{low}, {high}]") if low and high else middle


def _plain(value: float | None, *, signed: bool) -> str:
    """Write a number without the zero before its point: three columns with intervals fit into 80 characters."""
    return "" if value is None else f"{value:{'+.3f' if signed else '.3f'}}".replace("0.", ".", 1)
