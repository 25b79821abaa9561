"""Commands around the endpoint: ``medfilip keys``, ``medfilip audit`` and ``medfilip diagnose``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipelines.guard import guarded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medfilip.answers import DiagnosedFinding, Diagnosis
    from medfilip.model.zero_shot import ImageDiagnosis

_KEYS_FILE = Path("~/.config/medfilip/keys.json")
_STATES = {"sound": "[green]sound[/]", "open": "[yellow]open[/]", "broken": "[red]broken[/]"}

keys = typer.Typer(no_args_is_help=True, help="Keep the API keys of an endpoint: it reads keys_file while it runs.")
audit = typer.Typer(no_args_is_help=True, help="Check the audit log of an endpoint (audit_folder).")
KeysFile = Annotated[Path, typer.Option("--file", help="File of keys; keys_file of the endpoint.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@keys.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Who will use it; the audit log shows this name.")],
    file: KeysFile = _KEYS_FILE,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Instead of the endpoint's limit.")] = None,
    concurrent_requests: Annotated[int | None, typer.Option(min=1, help="Instead of the endpoint's limit.")] = None,
    debug: Debug = False,
) -> None:
    """Make a key and print it once; only its hash is kept."""

    def work() -> None:
        from serve.key_file import add_key

        path = file.expanduser()
        key = add_key(path, name, requests_per_minute=requests_per_minute, concurrent_requests=concurrent_requests)
        sys.stdout.write(f"{key}\n")
        sys.stderr.write(f"The key of {name}, shown only now. An endpoint with keys_file={path} takes it in seconds.\n")

    guarded(work, debug=debug)


@keys.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(help="Name of the key.")], file: KeysFile = _KEYS_FILE, debug: Debug = False
) -> None:
    """Refuse a key from now on."""

    def work() -> None:
        from serve.key_file import revoke_key

        revoke_key(file.expanduser(), name)
        sys.stdout.write(f"{name} is revoked; running endpoints refuse it within seconds.\n")

    guarded(work, debug=debug)


@keys.command("list")
def list_keys(file: KeysFile = _KEYS_FILE, debug: Debug = False) -> None:
    """Show names, times and limits; never keys."""

    def work() -> None:
        from serve.key_file import read_key_file

        table = Table(box=None)
        for title in ("name", "made", "revoked", "a minute", "at a time", "sha256"):
            table.add_column(title)
        for entry in read_key_file(file.expanduser()).keys:
            made, revoked = (f"{at:%Y-%m-%d %H:%M}" if at else "" for at in (entry.created, entry.revoked))
            table.add_row(
                entry.name, made, revoked,
                str(entry.requests_per_minute or "default"), str(entry.concurrent_requests or "default"),
                f"{entry.sha256[:8]}…",
            )  # fmt: skip
        Console().print(table)

    guarded(work, debug=debug)


@audit.command("verify")
def verify(folder: Annotated[Path, typer.Argument(help="Folder of the audit log.")], debug: Debug = False) -> None:
    """Check every chain: exit code 1 if one is broken. 'open' is one that no gateway has closed (yet)."""

    def work() -> None:
        from serve.audit import verify as verified

        chains = verified(folder)
        table = Table(box=None)
        for title in ("state", "requests", "first", "last", "head", "file"):
            table.add_column(title, justify="right" if title == "requests" else "left")
        for chain in chains:
            times = [(at or "")[:19].replace("T", " ") for at in (chain.first_at, chain.last_at)]
            table.add_row(_STATES[chain.state], str(chain.requests), *times, chain.head[:12], chain.file.name)
        console = Console(soft_wrap=True)
        console.print(table)
        broken = [chain for chain in chains if chain.state == "broken"]
        for chain in broken:
            console.print(f"[red]{chain.file.name}[/]: {chain.problem}.")
        if broken:
            sys.exit(1)

    guarded(work, debug=debug)


@audit.callback()
def _audit() -> None:
    """Keep 'verify' a word of its own."""


def diagnose(
    files: Annotated[list[Path], typer.Argument(help="DICOM, PNG or JPEG files of one study.")],
    label: Annotated[
        list[str] | None, typer.Option(help="Category, name or short text; may be repeated.", show_default=False)
    ] = None,
    described: Annotated[
        list[str] | None,
        typer.Option(help="A new label in words, as 'NAME: phrase; phrase'; may be repeated.", show_default=False),
    ] = None,
    attributes: Annotated[int, typer.Option(min=0, help="Visual attributes that each finding tells.")] = 0,
    endpoint: Annotated[
        str | None, typer.Option(help="Address of an endpoint; without it the model runs here.", show_default=False)
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="MEDFILIP_API_KEY", help="Key of the endpoint.", show_default=False)
    ] = None,
    checkpoint: Annotated[
        str | None, typer.Option(help="Without an endpoint: the model; by default the synthetic one of the package.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole answer as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Diagnose one study, here or at an endpoint, and print what was found."""

    def work() -> None:
        told = _described(described or [])
        asked: dict[str, Any] = {"described": told, "attributes": attributes}
        labels = list(label or ()) or ([] if told else None)
        answer: Diagnosis | ImageDiagnosis
        if endpoint is not None:
            from medfilip.client import Client

            with Client(endpoint, api_key) as client:
                answer = client.diagnose(files, labels, **asked)
            notes = [warning.message for warning in answer.warnings]
            data = answer.model_dump_json(indent=2)
        else:
            import medfilip

            model = medfilip.load(checkpoint) if checkpoint else medfilip.load()
            [answer] = model.diagnose([list(files)], labels, **asked)
            notes = [f"{model.training_data}; research use only."]
            notes += [f"Nothing is decided: {reason}." for reason in answer.abstentions]
            data = answer.to_json()
        if as_json:
            sys.stdout.write(data + "\n")
            return
        console = Console(highlight=False)
        console.print(_table(answer.findings))
        slots = [slot for item in answer.findings for slot in (item.severity, item.laterality, item.site) if slot]
        if not all(slot.settled for slot in slots):
            console.print("[dim]? does not outweigh the other choices: a guess.[/]")
        for note in notes:
            console.print(f"[dim]{escape(note)}[/]")

    guarded(work, debug=debug)


def _described(texts: Sequence[str]) -> dict[str, list[str]]:
    from medfilip.core.errors import ErrorCode, MedfilipError
    from medfilip.model.question import Described

    try:
        return {item.name: list(item.attributes) for item in map(Described.read, texts)}
    except ValueError as error:
        raise MedfilipError(
            ErrorCode.REQUEST_INVALID,
            "An entry of --described is not a name and visual phrases.",
            fix="Write it like: --described 'air crescent sign: crescent of air around a mass; thin dark rim'.",
        ) from error


def _table(findings: Sequence[DiagnosedFinding]) -> Table:
    table = Table(box=None)
    for title in ("finding", "probability", "decision", "most likely", "seen"):
        table.add_column(title, justify="right" if title == "probability" else "left")
    marks = {"present": "[bold]present[/]", "absent": "[dim]absent[/]", "abstained": "[yellow]abstained[/]"}
    for finding in sorted(findings, key=lambda item: -item.probability):
        interval = ""
        if finding.probability_low is not None and finding.probability_high is not None:
            interval = f" [dim]\\[{finding.probability_low:.2f}, {finding.probability_high:.2f}][/]"
        slots = [
            slot.value.replace("_", " ") + ("" if slot.settled else "?")
            for slot in (finding.severity, finding.laterality, finding.site)
            if slot
        ]
        table.add_row(
            escape(finding.label.replace("_", " ")), f"{finding.probability:.2f}{interval}",
            marks[finding.decision] + (f" ({finding.abstention})" if finding.abstention else ""), ", ".join(slots),
            escape("; ".join(match.text for match in finding.attributes)),
        )  # fmt: skip
    return table
