"""Whether images that are given as one study may be one: their findings are told together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_bytes
from medfilip.imaging.radiograph import Radiograph


class Origin(NamedTuple):
    """What tells an image from others, without naming anybody.

    Attributes
    ----------
    study
        A hash of what the file says of study and patient; ``None`` if it says nothing.
    pixel_hash
        Of the decoded pixels.
    """

    study: str | None
    pixel_hash: str


def origin_of(image: Radiograph) -> Origin:
    """Return where an image comes from."""
    named = sha256_bytes(f"{image.study_uid}\n{image.patient_id}".encode()) if image.study_uid else None
    return Origin(named, image.pixel_hash)


def check_one_study(images: Iterable[Origin]) -> None:
    """Refuse images of several studies, whose findings would be mixed into one answer, and the same one twice.

    Raises
    ------
    MedfilipError
        ``SOURCES_DIFFER`` or ``IMAGE_DUPLICATE``.
    """
    origins = list(images)
    if len({origin.study for origin in origins if origin.study is not None}) > 1:
        raise MedfilipError(
            ErrorCode.SOURCES_DIFFER,
            "The images are of different studies or patients.",
            fix="Give the images of one study together, and others by themselves.",
        )
    if len({origin.pixel_hash for origin in origins}) < len(origins):
        raise MedfilipError(
            ErrorCode.IMAGE_DUPLICATE, "An image was given twice, and would count twice.", fix="Give each image once."
        )
