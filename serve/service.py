"""What the decoders and encoders compute, as plain classes: Ray only places them (``serve.app``).

They return refusals as values. An exception that leaves a replica is logged by Ray with its message and fails a whole
batch; a refusal is one request's answer.
"""

from __future__ import annotations

import logging
import traceback
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from medfilip._version import __version__
from medfilip.answers import LICENSED, SYNTHETIC, DiagnosedFinding, ImageFacts, LabelFacts, ModelCard
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.findings.ontology import load_ontology
from medfilip.imaging.isolation import IsolatedDecoder
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.preprocess import to_model, to_store
from medfilip.imaging.reader import read_image
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.model.checkpoint import load_checkpoint
from medfilip.model.diagnoser import Diagnoser, LabelBank

FloatArray = NDArray[np.float32]
_T = TypeVar("_T")
_CACHED_BANKS = 64
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
    """

    pixels: FloatArray = field(repr=False)
    facts: ImageFacts


@dataclass(frozen=True)
class Scored:
    """What the model says about one image."""

    findings: tuple[DiagnosedFinding, ...]
    label_set: str


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


class DecoderService:
    """Files from outside → model input. One image at a time; compressed pixels are decoded in a killable process.

    Parameters
    ----------
    limits
        Bounds on a file.
    store_size
        Long side of stored images in ingestion: training saw images that had been shrunk to it.
    image_size
        Side of the model's input.
    """

    def __init__(self, limits: ImageLimits, *, store_size: int, image_size: int) -> None:
        self._limits, self._store_size, self._image_size = limits, store_size, image_size
        self._decoder = IsolatedDecoder(limits)

    def decode(self, data: bytes) -> Decoded | Refused:
        """Decode one DICOM, PNG or JPEG file."""
        return refusing(lambda: self._decode(data))

    def close(self) -> None:
        """End the decoding process."""
        self._decoder.close()

    def _decode(self, data: bytes) -> Decoded:
        image = read_image(data, self._limits, self._decoder)
        facts = ImageFacts(
            view=image.view,
            rows=image.pixels.shape[0],
            columns=image.pixels.shape[1],
            bits=image.bits_stored,
            photometric=image.photometric,
            inverted=image.photometric == "MONOCHROME1",
            transfer_syntax=image.transfer_syntax,
        )
        return Decoded(to_model(to_store(image.pixels, self._store_size), self._image_size), facts)


class EncoderService:
    """Model input → scores. Holds one checkpoint and the embeddings of the label sets that were asked for last.

    Call it from one thread at a time.
    """

    def __init__(self, checkpoint: Path, *, device: str = "cpu") -> None:
        loaded = load_checkpoint(checkpoint)
        self._diagnoser = Diagnoser(
            loaded.model.to(device),
            versions=loaded.versions,
            model_fingerprint=loaded.fingerprint,
            calibration=loaded.calibration,
        )
        self._metrics = {
            name: float(value)
            for name, value in loaded.metrics.items()
            if isinstance(value, int | float) and np.isfinite(value)
        }
        self._banks: OrderedDict[tuple[str, ...], LabelBank] = OrderedDict()
        self._default = self._default_labels()

    def embed(self, images: Sequence[FloatArray]) -> list[FloatArray | Refused]:
        """Embed a batch of images, each float32 [1, S, S]; one of another shape is refused alone."""
        shape = (1, self._diagnoser.image_size, self._diagnoser.image_size)
        wrong = Refused(ErrorCode.INTERNAL, "The decoder and the encoder serve different models.", "Deploy them again.")
        answers: list[FloatArray | Refused] = [wrong] * len(images)
        fitting = [at for at, image in enumerate(images) if image.shape == shape]
        if fitting:
            embedded = refusing(lambda: self._diagnoser.encode_images(np.stack([images[at] for at in fitting])))
            for row, at in enumerate(fitting):
                answers[at] = embedded if isinstance(embedded, Refused) else embedded[row]
        return answers

    def score(self, embedding: FloatArray, labels: tuple[str, ...] | None) -> Scored | Refused:
        """Score one embedded image [D] against labels; ``None`` stands for the default ones."""
        return refusing(lambda: self._score(embedding, labels or self._default))

    def card(self) -> ModelCard:
        """Return what is known about the model."""
        diagnoser = self._diagnoser
        config, versions = diagnoser.model.config, diagnoser.versions
        return ModelCard(
            fingerprint=diagnoser.fingerprint,
            code_version=__version__,
            trained_with=versions.medfilip,
            training_data=SYNTHETIC if versions.synthetic else LICENSED,
            vision=config.vision or config.preset,
            text=config.text or config.preset,
            image_size=config.image_size,
            embed_dim=config.embed_dim,
            ontology=versions.ontology,
            knowledge=versions.knowledge,
            knowledge_changed=diagnoser.knowledge_changed,
            calibrated_categories=tuple(sorted(diagnoser.calibration.categories)),
            metrics=self._metrics,
        )

    def labels(self) -> tuple[LabelFacts, ...]:
        """Return every category of the ontology and whether it is a default label."""
        knowledge, calibrated = load_knowledge(), self._diagnoser.calibration.categories
        return tuple(
            LabelFacts(
                id=category.id,
                label=category.label,
                group=category.group,
                default=category.id in self._default,
                calibrated=category.id in calibrated,
                has_knowledge=knowledge.entry(category.id) is not None,
            )
            for category in load_ontology().categories.values()
        )

    def _default_labels(self) -> tuple[str, ...]:
        """Categories that validation reports spoke about; for a model without calibration, those with knowledge."""
        known = self._diagnoser.calibration.categories or load_knowledge().entries
        return tuple(name for name in load_ontology().categories if name in known)

    def _score(self, embedding: FloatArray, labels: tuple[str, ...]) -> Scored:
        bank = self._bank(labels)
        scores = self._diagnoser.score(embedding[None], bank)
        return Scored(
            tuple(
                DiagnosedFinding(
                    label=label,
                    category=bank.categories[at],
                    probability=float(scores.probability_NL[0, at]),
                    calibrated=scores.calibrated[at],
                    calibration=scores.basis_L[at],
                    positive_score=float(scores.positive_NL[0, at]),
                    negative_score=float(scores.negative_NL[0, at]),
                )
                for at, label in enumerate(labels)
            ),
            bank.fingerprint,
        )

    def _bank(self, labels: tuple[str, ...]) -> LabelBank:
        if labels not in self._banks:
            self._banks[labels] = self._diagnoser.encode_labels(labels)
            if len(self._banks) > _CACHED_BANKS:
                self._banks.popitem(last=False)
        self._banks.move_to_end(labels)
        return self._banks[labels]
