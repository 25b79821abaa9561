"""What ``medfilip evaluate protocol`` takes and shows beside the settings of its job."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from medfilip.evaluation.protocols.protocol import Protocol

_WIDTH = 100


def named_protocol(given: list[str]) -> list[str]:
    """Turn a leading name into the setting ``protocol``."""
    first, *rest = given
    return given if "=" in first else [f"protocol={quoted(first)}", *rest]


def quoted(value: str) -> str:
    """Write a value so that it is read as text, whatever it looks like."""
    return json.dumps(value, ensure_ascii=False)


def show_protocols() -> None:
    """Print a table of the protocols: what each asks of a model, and where to get its data."""
    from rich.markup import escape
    from rich.table import Table

    from medfilip.evaluation.protocols.protocol import load_protocol, protocol_names

    protocols = [load_protocol(name) for name in protocol_names()]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("name", "task", "labels", "images"):
        table.add_column(name, no_wrap=True, justify="right" if name in ("labels", "images") else "left")
    table.add_column("licence", overflow="fold")
    table.add_column("what it takes", overflow="fold")
    for protocol in protocols:
        facts = (protocol.task.replace("_", "-"), str(len(protocol.categories)), _images(protocol))
        table.add_row(f"[bold]{protocol.id}[/]", *facts, escape(protocol.licence), escape(protocol.access))
    console = Console(highlight=False)
    console.width = min(console.width, _WIDTH) if console.is_terminal else _WIDTH
    console.print(table, "\nwhere to get them")
    for protocol in protocols:
        # Unbroken, to be copied.
        console.print(f"{protocol.id:12} {protocol.url}", markup=False, soft_wrap=True)
    console.print("\nmedfilip evaluate protocol NAME --data FOLDER --checkpoint RUN [KEY=VALUE]…", markup=False)


def _images(protocol: Protocol) -> str:
    """Return how many images the first documented release has."""
    release = protocol.documented[0]
    parts = [counts.images for counts in release.by_origin.values()]
    total = release.total.images or sum(count for count in parts if count is not None)
    return f"{'> ' if release.at_least else ''}{total:,}"
