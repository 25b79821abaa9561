"""What may be told about an image that was read: how it was written and what its pixels look like, nothing else."""

from __future__ import annotations

from medfilip.answers import ImageFacts
from medfilip.imaging.radiograph import Radiograph


def image_facts(image: Radiograph) -> ImageFacts:
    """Return the facts of an image for an answer."""
    return ImageFacts(
        view=image.view,
        rows=image.pixels.shape[0],
        columns=image.pixels.shape[1],
        bits=image.bits_stored,
        photometric=image.photometric,
        inverted=(image.photometric == "MONOCHROME1") != (image.set_upright and "inverted" in image.quality),
        transfer_syntax=image.transfer_syntax,
        grey_values=image.grey_values,
        quality=image.quality,
    )
