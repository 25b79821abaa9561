"""What the parts tell each other, and how a failure travels between them.

Parts return refusals as values. An exception that leaves a replica is logged by Ray with its message and fails a
whole batch; a refusal is one request's answer.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medfilip.answers import ImageFacts, ModelCard
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.one_study import Origin
from medfilip.model.question import Answered

__all__ = ["Answered", "Decoded", "Embedded", "FloatArray", "Refused", "Told", "refusing", "unexpected"]
FloatArray = NDArray[np.float32]
_T = TypeVar("_T")
_logger = logging.getLogger("medfilip.serve")


@dataclass(frozen=True)
class Refused:
    """A failure on its way back to the gateway."""

    code: ErrorCode
    message: str
    fix: str

    def error(self) -> MedfilipError:
        """Return it as an exception."""
        return MedfilipError(self.code, self.message, fix=self.fix)


@dataclass(frozen=True, eq=False)
class Decoded:
    """An image as the model takes it.

    Attributes
    ----------
    pixels
        float32 [1, S, S].
    facts
        What may be told about the file.
    preview
        A PNG of 8 bits, where it was asked for.
    origin
        What tells it from images of other studies, and from itself.
    """

    pixels: FloatArray = field(repr=False)
    facts: ImageFacts
    preview: bytes | None = field(default=None, repr=False)
    origin: Origin = field(default=Origin(None, ""), repr=False)


@dataclass(frozen=True)
class Told:
    """An answer, and the model that gave it.

    Attributes
    ----------
    seconds
        What it took the encoder, by stage.
    """

    answered: Answered
    card: ModelCard
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Embedded:
    """Vectors of unit length.

    Attributes
    ----------
    model
        Fingerprint of the model they are of.
    study_D
        float32; ``None`` if there was no image.
    text_TD
        float32, one row a text.
    """

    model: str
    study_D: FloatArray | None = field(repr=False)
    text_TD: FloatArray = field(repr=False)


def refusing(work: Callable[[], _T]) -> _T | Refused:
    """Run ``work``; whatever it raises becomes a refusal that quotes nothing of the input."""
    try:
        return work()
    except MedfilipError as error:
        return Refused(error.code, error.message, error.fix)
    except Exception as error:
        return unexpected(error)


def unexpected(error: BaseException) -> Refused:
    """Log where an unforeseen exception came from, without its message, and return what the user is told."""
    places = traceback.extract_tb(error.__traceback__)
    where = f"{Path(places[-1].filename).name}:{places[-1].lineno}" if places else "unknown place"
    _logger.error("unexpected %s at %s", type(error).__name__, where)
    return Refused(
        ErrorCode.INTERNAL,
        f"The request failed inside the endpoint ({type(error).__name__}).",
        "Try again; if it fails again, give the operator the request_id.",
    )
