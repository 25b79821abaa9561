"""Extraction measured against a truth, as a page, a page of errors, and a file of numbers.

The pages load nothing from anywhere. The page of errors quotes reports: it is written only where it was asked for, and
belongs wherever the reports themselves may be.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from medfilip.evaluation.agreement import AgreementResult
from medfilip.evaluation.disagreements import Disagreement, Passage
from medfilip.evaluation.extraction import ExtractionResult
from medfilip.evaluation.report import show
from medfilip.evaluation.risk import RiskCoverage

PAGE, NUMBERS, ERRORS = "extraction.html", "extraction.json", "errors.html"
_GREY, _BLUE, _ORANGE = "#808590", "#3b82c4", "#d9822b"
_SHOWN_CATEGORIES = 40


def write_extraction(
    folder: Path,
    *,
    facts: Mapping[str, str],
    agreement: Mapping[str, AgreementResult],
    statements: ExtractionResult | None,
    risk: RiskCoverage | None,
) -> list[Path]:
    """Write ``extraction.html`` and ``extraction.json`` and return their paths.

    Parameters
    ----------
    folder
        Is created if it is missing.
    facts
        What was compared with what.
    agreement
        "as stated" and the name of each export profile → agreement with annotators; empty for another kind of truth.
    statements
        Agreement with a truth of single statements, slot by slot; ``None`` for another kind of truth.
    risk
        How confidence goes with being right.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {
        "facts": dict(facts),
        "agreement": {name: result.model_dump(mode="json") for name, result in agreement.items()},
        "statements": statements.model_dump(mode="json") if statements else None,
        "risk": risk.model_dump(mode="json") if risk else None,
    }
    (folder / NUMBERS).write_text(json.dumps(numbers, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    rows = _bars(agreement, statements)
    page = _render(
        "extraction.html.j2",
        facts=facts,
        agreement=agreement,
        statements=statements,
        risk=risk,
        # Markup is safe here: the SVG is drawn by matplotlib, which escapes the labels.
        bars=Markup(bars_svg(rows)) if rows else None,  # noqa: S704
        curve=Markup(risk_svg(risk)) if risk else None,  # noqa: S704
    )
    (folder / PAGE).write_text(page, encoding="utf-8")
    return [folder / PAGE, folder / NUMBERS]


def write_errors(folder: Path, disagreements: Sequence[Disagreement], *, limit: int) -> Path:
    """Write ``errors.html``: the most confident disagreements first, with what the text says marked in it."""
    shown = sorted(disagreements, key=lambda d: (-d.confidence, d.category, d.report_id))[:limit]
    page = _render(
        "errors.html.j2",
        disagreements=shown,
        total=len(disagreements),
        kinds=sorted({d.kind for d in shown}),
        categories=sorted({d.category for d in shown}),
        phenomena=sorted({name for d in shown for name in d.phenomena}),
    )
    (folder / ERRORS).write_text(page, encoding="utf-8")
    return folder / ERRORS


def _render(template: str, **values: Any) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"interval": show, "marked": marked}
    folder = files("medfilip.evaluation") / "templates"
    environment.globals["style"] = Markup((folder / "style.css").read_text(encoding="utf-8"))  # noqa: S704 - our file
    return environment.from_string((folder / template).read_text(encoding="utf-8")).render(**values)


def marked(passage: Passage) -> Markup:
    """Return a passage as HTML with its spans marked; the text is escaped."""
    parts: list[Markup] = []
    last = 0
    for start, end, slot in passage.marks:
        parts.append(escape(passage.text[last:start]))
        parts.append(Markup('<mark class="{0}" title="{0}">{1}</mark>').format(slot, passage.text[start:end]))
        last = end
    return Markup("").join([*parts, escape(passage.text[last:])])


def _bars(agreement: Mapping[str, AgreementResult], statements: ExtractionResult | None) -> list[Any]:
    """Return (category, F1 interval) of the most frequent categories."""
    if agreement:
        first = next(iter(agreement.values()))
        return [(row.category, row.f1) for row in first.categories[:_SHOWN_CATEGORIES]]
    found = sorted(statements.categories.items(), key=lambda item: -item[1].true) if statements else []
    return [(name, row.f1) for name, row in found[:_SHOWN_CATEGORIES] if row.f1 is not None]


def bars_svg(rows: Sequence[Any]) -> str:
    """Draw F1 with its interval for each category as an SVG element without background."""
    with _theme():
        figure = Figure(figsize=(7.2, 0.6 + 0.19 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        places = range(len(rows), 0, -1)
        values = [interval.value for _, interval in rows]
        axes.barh(places, values, color=_BLUE, height=0.62)
        for place, (_, interval) in zip(places, rows, strict=True):
            if interval.low is not None:
                axes.plot([interval.low, interval.high], [place, place], color=_ORANGE, linewidth=1.4)
        axes.set_yticks(list(places), [name.replace("_", " ") for name, _ in rows], fontsize=8)
        axes.set_xlim(0, 1)
        axes.set_ylim(0.4, len(rows) + 0.6)
        axes.set_xlabel("F1, with 95 % interval", color=_GREY)
        return _svg(figure)


def risk_svg(risk: RiskCoverage) -> str:
    """Draw risk over coverage, and the share right over confidence, side by side."""
    with _theme():
        figure = Figure(figsize=(7.2, 3.0), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot(*zip(*risk.curve, strict=True), color=_BLUE, linewidth=1.6)
        left.set_xlim(0, 1)
        left.set_ylim(bottom=0)
        left.set_xlabel("coverage: share of findings kept", color=_GREY)
        left.set_ylabel("risk: share wrong", color=_GREY)
        low = min(min(mean, share) for mean, share, _ in risk.bins)
        right.plot([low, 1], [low, 1], color=_GREY, linewidth=0.8, linestyle=":")
        right.plot([mean for mean, _, _ in risk.bins], [share for _, share, _ in risk.bins], "o-", color=_ORANGE)
        right.set_xlabel("confidence", color=_GREY)
        right.set_ylabel("share right", color=_GREY)
        return _svg(figure)


def _theme() -> Any:
    return mpl.rc_context({"svg.hashsalt": "medfilip", "svg.fonttype": "none", "text.color": _GREY})


def _svg(figure: Figure) -> str:
    for axes in figure.axes:
        axes.tick_params(colors=_GREY)
        axes.patch.set_alpha(0)
        for spine in axes.spines.values():
            spine.set_color(_GREY)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def table_lines(agreement: Mapping[str, AgreementResult]) -> Iterator[tuple[str, ...]]:
    """Yield a row of the terminal's table for each metric: name, then one cell for each way of comparing."""
    names = dict.fromkeys(name for result in agreement.values() for name in result.metrics)
    for name in names:
        yield (name.replace("_", " "), *(show(result.metrics.get(name)) for result in agreement.values()))
