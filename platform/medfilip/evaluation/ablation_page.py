"""An ablation as one page, one plot and one file of numbers."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from medfilip.evaluation.ablation import AblationResult
from medfilip.evaluation.drawing import COLOURS, GREY, drawing
from medfilip.evaluation.report import show

PAGE, NUMBERS = "ablation.html", "ablation.json"


def write_ablation(folder: Path, result: AblationResult, *, synthetic: bool) -> tuple[Path, Path]:
    """Write ``ablation.html`` and ``ablation.json`` and return their paths."""
    numbers = {"synthetic": synthetic, **result.model_dump(mode="json")}
    (folder / NUMBERS).write_text(json.dumps(numbers, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    templates = files("medfilip.evaluation") / "templates"
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["interval"] = show
    page = environment.from_string((templates / "ablation.html.j2").read_text(encoding="utf-8")).render(
        result=result,
        synthetic=synthetic,
        style=Markup((templates / "style.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        plot=Markup(forest_svg(result)),  # noqa: S704 - matplotlib escapes the names of arms
    )
    (folder / PAGE).write_text(page, encoding="utf-8")
    return folder / PAGE, folder / NUMBERS


def forest_svg(result: AblationResult) -> str:
    """Draw the macro AUROC of every arm with its interval, POS and PNC side by side, as an SVG element."""
    size = (8.0, 1.2 + 0.36 * len(result.arms))
    with drawing(size, "macro AUROC", "") as (axes, written):
        for shift, (metric, name) in enumerate((("pos_auroc", "POS"), ("pnc_auroc", "PNC"))):
            for row, arm in enumerate(result.arms):
                found = arm.metrics.get(metric)  # type: ignore[call-overload]
                if found is None:
                    continue
                height = row + 0.24 * (shift - 0.5)
                low, high = (found.low or found.value), (found.high or found.value)
                axes.plot([low, high], [height, height], color=COLOURS[shift], linewidth=2)
                axes.plot(found.value, height, "o", color=COLOURS[shift], label=name if row == 0 else None)
        axes.axvline(0.5, color=GREY, linestyle=":", linewidth=0.8)
        axes.set_yticks(range(len(result.arms)), [arm.arm.replace("_", " ") for arm in result.arms])
        axes.invert_yaxis()
    return written[0]
