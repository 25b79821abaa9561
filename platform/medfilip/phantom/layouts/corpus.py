"""Phantom corpora in the layouts of public data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import canonical_json
from medfilip.phantom.layouts import dicom_files, raster
from medfilip.phantom.layouts.item import Item, LayoutTruth, items
from medfilip.phantom.layouts.names import LAYOUTS
from medfilip.phantom.study import GENERATOR_VERSION, StudyOptions, generate

Writer = Callable[[Path, Iterable[Item]], Iterator[LayoutTruth]]
_WRITERS: dict[str, Writer] = {
    "chestxray14": raster.chestxray14,
    "rsna": dicom_files.rsna,
    "vindr_cxr": dicom_files.vindr_cxr,
    "covidx": raster.covidx,
    "chexpert5": raster.chexpert5,
    "padchest": raster.padchest,
    "siim_acr": dicom_files.siim_acr,
}
TRUTH, RECIPE = "truth.jsonl", "phantom.json"


def check_layout(layout: str) -> str:
    """Return the name of a layout.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` if there is none of that name.
    """
    if layout not in _WRITERS:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"There is no layout '{layout}' for phantoms.",
            fix=f"Choose from {', '.join(_WRITERS)}.",
        )
    return layout


def write_layout(folder: Path, layout: str, count: int, seed: int, *, options: StudyOptions | None = None) -> None:
    """Write ``count`` studies of a seed as a public data set lays its files out.

    Beside them lie ``truth.jsonl`` (`LayoutTruth`, a line an image) and ``phantom.json``, by which an evaluation knows
    that these are no patients. Images show only what the data set has a label for.

    Parameters
    ----------
    folder
        Made if it is not there; files of the same names are replaced.
    layout
        A name of `LAYOUTS`.
    count
        Number of studies.
    seed
        Names the studies; a non-negative integer.
    options
        What the studies are made of; categories that the layout cannot name are not drawn.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` for an unknown layout, options without any category that it can name, or a count or seed
        that names no studies.
    """
    check_layout(layout)
    options = options or StudyOptions()
    wanted = tuple(category for category in options.categories if category in LAYOUTS[layout])
    if not wanted or count < 1 or seed < 0:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"Phantoms in the layout '{layout}' need count >= 1, seed >= 0 and a category that it has a label for.",
            fix=f"Choose categories from {', '.join(LAYOUTS[layout])}.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    options = replace(options, categories=wanted)
    with (folder / TRUTH).open("w", encoding="utf-8", newline="\n") as lines:
        for truth in _WRITERS[layout](folder, items(generate(count, seed, options=options))):
            lines.write(truth.model_dump_json() + "\n")
    recipe = {"layout": layout, "count": count, "seed": seed, "generator_version": GENERATOR_VERSION, **asdict(options)}
    (folder / RECIPE).write_text(canonical_json(recipe) + "\n", encoding="utf-8")


def read_layout_truth(folder: Path) -> list[LayoutTruth]:
    """Read what was drawn in each image of a folder that `write_layout` wrote."""
    lines = (folder / TRUTH).read_text(encoding="utf-8").splitlines()
    return [LayoutTruth.model_validate_json(line) for line in lines]
