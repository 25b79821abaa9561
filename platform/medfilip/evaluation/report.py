"""The evaluation as one page and one file of numbers.

The page is self-contained (no script, no font, no address is loaded) and follows the reader's light or dark setting.
Page and JSON are written from the same objects, so they cannot disagree.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import matplotlib as mpl
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from medfilip.evaluation.extraction import ExtractionResult
from medfilip.evaluation.metrics import Interval
from medfilip.evaluation.zero_shot import ZeroShotResult

PAGE, NUMBERS = "report.html", "report.json"
_GREY = "#808590"  # readable on white and on near-black
_COLOURS = ("#3b82c4", "#d9822b", "#4a9d5b", "#c4504f", "#8b6bb8", "#8d6e63", "#cf6fb0", "#7f8c3a")


def write_report(
    folder: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    zero_shot: ZeroShotResult | None = None,
    extraction: ExtractionResult | None = None,
    synthetic: bool,
) -> tuple[Path, Path]:
    """Write ``report.html`` and ``report.json`` and return their paths.

    Parameters
    ----------
    folder
        Is created if it is missing.
    title
        Heading of the page.
    facts
        What was evaluated: model and data fingerprints, split, …
    zero_shot, extraction
        The parts that were evaluated.
    synthetic
        Whether phantoms were used in training or evaluation; the page then says so in its first line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {
        "title": title,
        "synthetic": synthetic,
        "facts": dict(facts),
        "zero_shot": zero_shot.model_dump(mode="json") if zero_shot else None,
        "extraction": extraction.model_dump(mode="json") if extraction else None,
    }
    (folder / NUMBERS).write_text(json.dumps(numbers, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["interval"] = show
    template = (files("medfilip.evaluation") / "templates" / "report.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(template).render(
        title=title,
        facts=facts,
        zero_shot=zero_shot,
        extraction=extraction,
        synthetic=synthetic,
        # Markup is safe here: the SVG is drawn by matplotlib, which escapes the labels.
        curves=Markup(roc_svg(zero_shot)) if zero_shot else None,  # noqa: S704
    )
    (folder / PAGE).write_text(page, encoding="utf-8")
    return folder / PAGE, folder / NUMBERS


def show(number: Interval | None) -> str:
    """Write "0.913 [0.874, 0.950]", or a dash."""
    if number is None:
        return "–"
    bounds = "" if number.low is None or number.high is None else f" [{number.low:.3f}, {number.high:.3f}]"
    return f"{number.value:.3f}{bounds}"


def roc_svg(result: ZeroShotResult) -> str:
    """Draw the PNC ROC curves as an SVG element without background; equal results give equal text."""
    with mpl.rc_context({"svg.hashsalt": "medfilip", "svg.fonttype": "none", "text.color": _GREY}):
        figure = Figure(figsize=(6.4, 4.8))
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8, linestyle=":")
        for at, item in enumerate(entry for entry in result.labels if entry.pnc_auroc is not None):
            x, y = zip(*item.curve, strict=True)
            assert item.pnc_auroc is not None
            name = f"{item.label.replace('_', ' ')} ({item.pnc_auroc.value:.2f})"
            axes.plot(x, y, color=_COLOURS[at % len(_COLOURS)], linewidth=1.6, label=name.replace("$", r"\$"))
        axes.set_xlabel("false positive rate", color=_GREY)
        axes.set_ylabel("true positive rate", color=_GREY)
        axes.tick_params(colors=_GREY)
        for spine in axes.spines.values():
            spine.set_color(_GREY)
        if len(axes.lines) > 1:
            axes.legend(loc="lower right", frameon=False, fontsize=8)
        axes.patch.set_alpha(0)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
