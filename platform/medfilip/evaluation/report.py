"""The evaluation as one page and one file of numbers.

The page is self-contained (no script, no font, no address is loaded) and follows the reader's light or dark setting.
Page and JSON are written from the same objects, so they cannot disagree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes

from medfilip.evaluation.diagnosis import DiagnosisResult
from medfilip.evaluation.drawing import COLOURS, DASHES, GREY, drawing
from medfilip.evaluation.examples import Example
from medfilip.evaluation.extraction import ExtractionResult
from medfilip.evaluation.metrics import Interval
from medfilip.evaluation.provenance import RunFacts
from medfilip.evaluation.zero_shot import ZeroShotResult

PAGE, NUMBERS = "report.html", "report.json"
_SIZE = (6.0, 5.2)


def write_report(
    folder: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    diagnosis: DiagnosisResult | None = None,
    extraction: ExtractionResult | None = None,
    runs: Sequence[RunFacts] = (),
    examples: Sequence[Example] = (),
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
    diagnosis, extraction
        The parts that were evaluated.
    runs
        The runs that data and model came from.
    examples
        Pictures of images with their heat maps; they are on the page alone.
    synthetic
        Whether phantoms were used in training or evaluation; the page then says so in its first line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers = {
        "title": title,
        "synthetic": synthetic,
        "facts": dict(facts),
        "runs": [run.model_dump(mode="json") for run in runs],
        "diagnosis": diagnosis.model_dump(mode="json") if diagnosis else None,
        "extraction": extraction.model_dump(mode="json") if extraction else None,
    }
    (folder / NUMBERS).write_text(json.dumps(numbers, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    templates = files("medfilip.evaluation") / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"interval": show, "value": show_value}
    zero_shot = diagnosis.zero_shot if diagnosis else None
    page = environment.from_string((templates / "report.html.j2").read_text(encoding="utf-8")).render(
        title=title,
        facts=facts,
        runs=runs,
        examples=examples,
        diagnosis=diagnosis,
        extraction=extraction,
        synthetic=synthetic,
        style=Markup((templates / "style.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        # Markup is safe here: the SVG is drawn by matplotlib, which escapes the labels.
        curves=Markup(roc_svg(zero_shot)) if zero_shot else None,  # noqa: S704
        reliability=Markup(reliability_svg(zero_shot)) if zero_shot else None,  # noqa: S704
    )
    (folder / PAGE).write_text(page, encoding="utf-8")
    return folder / PAGE, folder / NUMBERS


def show(number: Interval | None) -> str:
    """Write "0.913 [0.874, 0.950]", or a dash."""
    return "–" if number is None else str(number)


def show_value(number: Interval | None) -> str:
    """Write "0.913", or a dash."""
    return "–" if number is None else f"{number.value:.3f}"


def roc_svg(result: ZeroShotResult) -> str:
    """Draw the PNC ROC curves as an SVG element without background; equal results give equal text."""
    with drawing(_SIZE, "false positive rate", "true positive rate") as (axes, written):
        _diagonal(axes)
        for at, item in enumerate(entry for entry in result.labels if entry.curve):
            x, y = zip(*item.curve, strict=True)
            area = item.metrics.get("pnc_auroc")
            _line(axes, at, x, y, f"{item.label} ({area.value:.2f})" if area else item.label)
    return written[0]


def reliability_svg(result: ZeroShotResult) -> str:
    """Draw how often what is called so probable is there, by label; on the diagonal a probability is one."""
    with drawing(_SIZE, "probability", "share with the finding") as (axes, written):
        _diagonal(axes)
        for at, item in enumerate(entry for entry in result.labels if entry.reliability):
            x, y, _ = zip(*item.reliability, strict=True)
            error = item.metrics.get("ece")
            _line(axes, at, x, y, f"{item.label} (ECE {error.value:.2f})" if error else item.label, marker=".")
    return written[0]


def _line(axes: Axes, at: int, x: tuple[float, ...], y: tuple[float, ...], name: str, marker: str = "") -> None:
    colour, dash = COLOURS[at % len(COLOURS)], DASHES[at // len(COLOURS) % len(DASHES)]
    label = name.replace("_", " ").replace("$", r"\$")
    axes.plot(x, y, color=colour, linestyle=dash, linewidth=1.5, marker=marker, label=label)


def _diagonal(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
