"""The one way of a radiograph into the platform: read, judged, set upright, for ingestion, batch and endpoint alike.

A header that states view, polarity and orientation is believed, since pixels are judged with some error; what pixels
say against it is a flag beside the image. PNG and JPEG state nothing: there a negative is turned positive and a turned
image upright, as a person would before reading it, and the flag says that it was.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import Settings
from medfilip.imaging.isolation import IsolatedDecoder
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.quality import (
    NOT_CHEST_EXPLANATIONS,
    Assessment,
    assess,
    correct,
    reasons,
)
from medfilip.imaging.radiograph import Radiograph
from medfilip.imaging.reader import read_image
from medfilip.imaging.view_words import view_in_words


class QualityChecks(Settings):
    """What follows from what the pixels look like."""

    not_chest: Literal["refuse", "accept"] = Field(
        "refuse", description="what becomes of pixels that look like no chest radiograph"
    )
    set_upright: bool = Field(
        True, description="turn negatives and turned images whose file states neither (PNG, JPEG)"
    )


def take_in(
    data: bytes,
    limits: ImageLimits,
    decoder: IsolatedDecoder | None = None,
    *,
    checks: QualityChecks | None = None,
    stated_view: str | None = None,
) -> Radiograph:
    """Read an image and judge it.

    Parameters
    ----------
    data
        The bytes of a DICOM, PNG or JPEG file.
    limits
        Bounds that hold before anything is decoded.
    decoder
        Worker for compressed pixels; without it one is started and ended for this image.
    checks
        What follows from the judgement; the defaults if not given.
    stated_view
        What a table says of the view; it stands over the header, since somebody made it for this corpus.

    Returns
    -------
    Radiograph
        With its view, who says so, and what is wrong with it (``quality``).

    Raises
    ------
    MedfilipError
        As `medfilip.imaging.reader.read_image`; ``IMAGE_NOT_CHEST`` with the reason if the pixels show no chest.
    """
    return judge(read_image(data, limits, decoder), checks=checks, stated_view=stated_view)


def judge(image: Radiograph, *, checks: QualityChecks | None = None, stated_view: str | None = None) -> Radiograph:
    """Judge an image that was read and set it upright: the second half of `take_in`.

    Raises
    ------
    MedfilipError
        ``IMAGE_NOT_CHEST`` with the reason if the pixels show no chest and ``checks`` refuse that.
    """
    checks = checks or QualityChecks()
    found = assess(image.pixels)
    if found.not_chest_reason is not None and checks.not_chest == "refuse":
        raise MedfilipError(
            ErrorCode.IMAGE_NOT_CHEST,
            f"The pixels show no chest radiograph ({found.not_chest_reason}): "
            f"{NOT_CHEST_EXPLANATIONS[found.not_chest_reason]}",
            fix="Send chest radiographs only, or set checks.not_chest=accept.",
        )
    image = _with_view(image, found, stated_view)
    flags = tuple(map(str, reasons(found)))
    if checks.set_upright and not image.from_dicom and (found.inverted or found.rotation):
        image = replace(image, pixels=correct(image.pixels, found), set_upright=True)
    return replace(image, quality=flags)


def _with_view(image: Radiograph, found: Assessment, stated: str | None) -> Radiograph:
    view, position = view_in_words(stated)
    if view != "unknown":
        return replace(image, view=view, view_position=position, view_source="table")
    if image.view != "unknown":
        return replace(image, view_source="header")
    if found.view != "unknown":
        return replace(image, view=found.view, view_source="pixels")
    return image
