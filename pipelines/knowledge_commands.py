"""``medfilip knowledge show | lint | diff``: what is known about a category, whether it is sound, what has changed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.markup import escape

from pipelines.guard import guarded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medfilip.findings.ontology import Ontology
    from medfilip.knowledge.inject import InjectionMode
    from medfilip.knowledge.knowledge import Entry, Knowledge
    from medfilip.knowledge.lint import Problem

knowledge = typer.Typer(
    no_args_is_help=True, help="Show, check and compare the visual knowledge that is injected into texts."
)
_WIDTH = 100
_LIKELY = 0.5

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@knowledge.command()
def show(
    category: Annotated[str, typer.Argument(help="Id, name or synonym of a category.")],
    severity: Annotated[str | None, typer.Option(help="Severity of the finding, such as moderate.")] = None,
    side: Annotated[str | None, typer.Option(help="left, right or bilateral.")] = None,
    site: Annotated[list[str] | None, typer.Option(help="Id of a site, such as lung_base; may be repeated.")] = None,
    pattern: Annotated[list[str] | None, typer.Option(help="Pattern, such as patchy; may be repeated.")] = None,
    certainty: Annotated[str, typer.Option(help="present, absent or uncertain.")] = "present",
    mode: Annotated[str, typer.Option(help="conditioned, category or none.")] = "conditioned",
    file: Annotated[str, typer.Option(help="Knowledge file or folder; 'installed' is what ships.")] = "installed",
    debug: Debug = False,
) -> None:
    """Show the entry of a category by axis, and the texts that a finding would get."""

    def work() -> None:
        from medfilip.findings.ontology import load_ontology
        from medfilip.knowledge.inject import training_texts

        ontology = load_ontology()
        known = _usable(file, ontology)
        finding: dict[str, object] = {
            "category": _category(category, known, ontology),
            "certainty": _choice(certainty, ("present", "absent", "uncertain"), "certainty"),
            "severity": severity and _choice(severity, tuple(ontology.severities), "severity"),
            "laterality": side and _choice(side, ("left", "right", "bilateral"), "side"),
            "sites": [_choice(item.replace(" ", "_"), tuple(ontology.sites), "site") for item in site or ()],
            "patterns": [_choice(item, tuple(ontology.patterns), "pattern") for item in pattern or ()],
        }
        chosen: Any = _choice(mode, ("conditioned", "category", "none"), "mode")
        texts = training_texts(finding, known, ontology, mode=chosen)
        _console().print(_shown(finding, texts, chosen, known, ontology))

    guarded(work, debug=debug)


@knowledge.command()
def lint(
    file: Annotated[str, typer.Argument(help="Knowledge file or folder; without it, what ships.")] = "installed",
    debug: Debug = False,
) -> None:
    """Check knowledge: schema, ids, and phrases that would make injected texts wrong. Errors give exit code 1."""

    def work() -> None:
        from medfilip.findings.ontology import load_ontology
        from medfilip.knowledge.lint import lint as problems_of
        from medfilip.knowledge.reading import read_knowledge

        ontology = load_ontology()
        known, flaws = read_knowledge(file, ontology)
        problems = problems_of(known, ontology, flaws)
        console = _console()
        if problems:
            console.print(_problem_table(problems))
        errors = sum(problem.severity == "error" for problem in problems)
        phrases = sum(1 for entry in known.entries.values() for _ in entry.texts())
        console.print(
            f"{len(known.entries)} entries with {phrases:,} phrases and descriptions: "
            f"{_count(errors, 'error')}, {_count(len(problems) - errors, 'warning')}"
        )
        if errors:
            sys.exit(1)

    guarded(work, debug=debug)


@knowledge.command()
def diff(
    old: Annotated[str, typer.Argument(help="Knowledge file or folder, or 'installed'.")],
    new: Annotated[str, typer.Argument(help="Knowledge file or folder, or 'installed'.")],
    debug: Debug = False,
) -> None:
    """Compare two versions of knowledge, by category and axis."""

    def work() -> None:
        from rich.table import Table

        from medfilip.findings.ontology import load_ontology
        from medfilip.knowledge.diff import compare

        ontology = load_ontology()
        changes = compare(_usable(old, ontology), _usable(new, ontology))
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name in ("category", "axis", ""):
            table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=28)
        table.add_column("phrase", overflow="fold")
        signs = {"added": "[green]+[/]", "removed": "[red]-[/]", "changed": "[yellow]~[/]"}
        before = ""
        for change in changes:
            told = " → ".join(filter(None, (change.old, change.new)))
            category = "" if change.category == before else change.category
            table.add_row(escape(category), change.axis or "entry", signs[change.kind], escape(told))
            before = change.category
        console = _console()
        if changes:
            console.print(table)
        categories = len({change.category for change in changes})
        console.print(f"{_count(len(changes), 'change')} in {_count(categories, 'category', 'categories')}")

    guarded(work, debug=debug)


def _console() -> Console:
    console = Console(highlight=False)
    # A pipe has no width of its own; a wide terminal would tear the columns apart.
    console.width = min(console.width, _WIDTH) if console.is_terminal else _WIDTH
    return console


def _usable(place: str, ontology: Ontology) -> Knowledge:
    from medfilip.core.errors import ErrorCode, MedfilipError
    from medfilip.knowledge.reading import read_knowledge

    known, flaws = read_knowledge(place, ontology)
    if flaws:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"The knowledge '{place}' is invalid at '{flaws[0].place}': {flaws[0].message}.",
            fix=f"See all flaws with 'medfilip knowledge lint {place}'.",
        )
    return known


def _category(name: str, known: Knowledge, ontology: Ontology) -> str:
    """Find a category by id, label or synonym, with the nearest name in the error."""
    from medfilip.core.errors import ErrorCode, MedfilipError

    wanted = " ".join(name.lower().split())
    if wanted in known.entries:
        return wanted
    terms = {term: item.id for item in reversed(ontology.categories.values()) for term in (*item.terms, item.id)}
    # An id or a label is meant before a synonym that another category may share.
    terms |= {key: item.id for item in ontology.categories.values() for key in (item.label.lower(), item.id)}
    if wanted in terms:
        return terms[wanted]
    nearest = _nearest(wanted, [*terms, *known.entries])
    suggestion = f"Did you mean '{nearest}'?" if nearest else "Give an id or a name of ontology.yaml."
    raise MedfilipError(ErrorCode.NOT_FOUND, f"There is no category '{name}'.", fix=suggestion)


def _choice(value: str, allowed: Sequence[str], option: str) -> str:
    from medfilip.core.errors import ErrorCode, MedfilipError

    if value.lower() in allowed:
        return value.lower()
    nearest = _nearest(value.lower(), allowed)
    shown = f"Did you mean '{nearest}'?" if nearest else f"One of: {', '.join(allowed)}."
    raise MedfilipError(ErrorCode.CONFIG_INVALID, f"The option '--{option}' cannot be '{value}'.", fix=shown)


def _nearest(name: str, names: Sequence[str]) -> str | None:
    from difflib import get_close_matches

    return next(iter(get_close_matches(name, names, n=1, cutoff=_LIKELY)), None)


def _shown(
    finding: dict[str, object], texts: list[str], mode: InjectionMode, known: Knowledge, ontology: Ontology
) -> RenderableType:
    from rich.padding import Padding
    from rich.panel import Panel
    from rich.table import Table

    category = str(finding["category"])
    entry = known.entry(category)
    reason = known.without_entry.get(category, "nothing has been written about it yet")
    head = _entry_table(entry, finding, known) if entry else f"There is no entry: {escape(reason)}."
    review = f" [dim]{entry.review}[/]" if entry else ""
    title = f"[bold]{escape(ontology.label(category))}[/] [dim]({escape(category)})[/]{review}"
    listed = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    listed.add_column(style="cyan", justify="right", no_wrap=True)
    listed.add_column(overflow="fold")
    for number, text in enumerate(texts):
        listed.add_row(str(number), escape(text))
    about = f"texts of this finding ({mode}); 0 is the canonical one, training draws among all"
    return Group(Panel(head, title=title, title_align="left"), Padding(f"[bold]{about}[/]", (0, 0, 0, 1)), listed)


def _entry_table(entry: Entry, finding: dict[str, object], known: Knowledge) -> RenderableType:
    from rich.table import Table

    from medfilip.knowledge.diff import describe

    used = set(entry.phrases(finding)) if finding["certainty"] != "absent" else set()
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for axis, attributes in entry.attributes.items():
        for number, attribute in enumerate(attributes):
            mark = "[green]•[/]" if attribute.text in used and attribute.fits(finding) else "[dim]·[/]"
            condition = describe(attribute).removeprefix(attribute.text)
            told = f"{mark} {escape(attribute.text)}[dim]{escape(condition)}[/]"
            table.add_row("" if number else axis.replace("_", " "), told)
    for number, text in enumerate(entry.descriptions):
        table.add_row("" if number else "descriptions", f"[dim]{number + 1}[/] {escape(text)}")
    for number, source in enumerate(entry.sources):
        table.add_row("" if number else "sources", f"[dim]{escape(known.sources.get(source, source))}[/]")
    return table


def _problem_table(problems: list[Problem]) -> RenderableType:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("", "rule", "where"):
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=34)
    table.add_column("problem", overflow="fold")
    for problem in problems:
        style = "red" if problem.severity == "error" else "yellow"
        where = " ".join(filter(None, (problem.category, problem.axis)))
        table.add_row(f"[{style}]{problem.severity}[/]", problem.rule, escape(where), escape(problem.message))
    return table


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
