"""Plots that stand on a page of either theme: SVG without background, in colours that are readable on both."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

GREY = "#808590"  # readable on white and on near-black
COLOURS = ("#3b82c4", "#d9822b", "#4a9d5b", "#c4504f", "#8b6bb8", "#8d6e63", "#cf6fb0", "#7f8c3a")
DASHES = ("-", "--", "-.", ":")  # so that more labels than colours can be told apart


@contextmanager
def drawing(size: tuple[float, float], x: str, y: str) -> Iterator[tuple[Axes, list[str]]]:
    """Yield axes, and a list that holds the text of the SVG element afterwards; equal plots give equal text.

    Parameters
    ----------
    size
        Width and height in inches.
    x, y
        Names of the axes.
    """
    written: list[str] = []
    with mpl.rc_context({"svg.hashsalt": "medfilip", "svg.fonttype": "none", "text.color": GREY}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        yield axes, written
        axes.set_xlabel(x, color=GREY)
        axes.set_ylabel(y, color=GREY)
        axes.tick_params(colors=GREY)
        for spine in axes.spines.values():
            spine.set_color(GREY)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="best", frameon=False, fontsize=8)
        axes.patch.set_alpha(0)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    written.append(text[text.index("<svg") :])
