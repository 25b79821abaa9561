"""A checkpoint as a user of the library meets it: ``medfilip.load(place)``, then images and words.

The numbers are those of the endpoint for the same file: intake, preprocessing, prompts and calibration are the same
functions.

Legend of tensor names: N images or studies, T texts, D joint dimension, S side of the input.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, Unpack, overload

import numpy as np
import torch
from numpy.typing import NDArray

from medfilip.answers import INTENDED_USE, LICENSED, SYNTHETIC, Abstention, DiagnosedFinding, ImageFacts
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.facts import image_facts
from medfilip.imaging.given import GivenImage, radiograph_of
from medfilip.imaging.isolation import shared_decoder
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.one_study import Origin, check_one_study, origin_of
from medfilip.imaging.preprocess import DEFAULT_STORE_SIZE, to_model, to_store
from medfilip.model.answering import Answering
from medfilip.model.calibration import Rule
from medfilip.model.diagnoser import Diagnoser, FloatArray
from medfilip.model.locate import DEFAULT_CHECKPOINT, find_checkpoint, local_copy
from medfilip.model.question import Described, HeatMaps, Question
from medfilip.storage.location import Location

_IMAGES_AT_ONCE = 64  # decoded images in memory; their embeddings are small


@dataclass(frozen=True, repr=False)
class ImageDiagnosis(Sequence[DiagnosedFinding]):
    """What the model says about one image or study: a sequence of findings, one a label, that prints as a table.

    Attributes
    ----------
    findings
        In the order of the labels; each has ``label``, ``probability``, ``decision``, ``positive_score`` and
        ``negative_score`` (logits), and the names of the endpoint's answer throughout.
    images
        What the files of the images said.
    abstentions
        Why nothing is decided: ``not_chest``, ``unfamiliar_image``; empty where decisions stand.
    unfamiliarity
        Share of reference images nearer to what the model knows; ``None`` if the checkpoint has no reference.
    training_data
        What the model learned from.
    """

    findings: tuple[DiagnosedFinding, ...]
    images: tuple[ImageFacts, ...]
    abstentions: tuple[Abstention, ...]
    unfamiliarity: float | None
    training_data: str

    @property
    def quality(self) -> tuple[str, ...]:
        """Return what the pixels say against the images: ``not_chest``, ``rotated``, …, each once."""
        return tuple(dict.fromkeys(flag for image in self.images for flag in image.quality))

    @overload
    def __getitem__(self, key: int | str) -> DiagnosedFinding: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[DiagnosedFinding, ...]: ...
    def __getitem__(self, key: int | str | slice) -> DiagnosedFinding | tuple[DiagnosedFinding, ...]:
        """Return a finding by its position or by its label."""
        if not isinstance(key, str):
            return self.findings[key]
        for finding in self.findings:
            if finding.label == key:
                return finding
        raise KeyError(key)

    def to_json(self) -> str:
        """Write it as JSON, with the names of the endpoint's answer."""
        told = {
            "findings": [finding.model_dump() for finding in self.findings],
            "abstentions": self.abstentions,
            "unfamiliarity": self.unfamiliarity,
            "images": [image.model_dump() for image in self.images],
            "model": {"training_data": self.training_data},
            "intended_use": INTENDED_USE,
        }
        return json.dumps(told, indent=2)

    def __len__(self) -> int:
        return len(self.findings)

    def __iter__(self) -> Iterator[DiagnosedFinding]:
        return iter(self.findings)

    def __repr__(self) -> str:
        width = max([len("label"), *(len(finding.label) for finding in self.findings)])
        lines = [f"{'label':{width}}  probability  calibration  decision   positive  negative"]
        lines += [
            f"{item.label:{width}}  {item.probability:11.3f}  {item.calibration:11}  {item.decision:9}  "
            f"{item.positive_score:8.3f}  {item.negative_score:8.3f}"
            for item in self.findings
        ]
        flags = f"; look at the image: {', '.join(self.quality)}" if self.quality else ""
        if self.abstentions:
            flags += f"; nothing is decided: {', '.join(self.abstentions)}"
        return "\n".join([*lines, f"{self.training_data}; {INTENDED_USE}{flags}"])


class Asked(TypedDict, total=False):
    """What `ZeroShotModel.diagnose` may be asked beside labels.

    Attributes
    ----------
    described
        New labels in words: name → visual phrases.
    operating_point
        Rule of the thresholds: ``f1``, ``youden`` or ``sensitivity``; by default the checkpoint's own.
    threshold
        One probability for all labels instead.
    attributes
        How many of its best matching visual attributes each finding tells.
    heat_maps
        Which findings get one: ``none``, ``present`` or ``all``.
    """

    described: Mapping[str, str | Sequence[str]]
    operating_point: Rule | None
    threshold: float | None
    attributes: int
    heat_maps: HeatMaps


@dataclass
class _Batch:
    """Images that are embedded together, and the facts about them by study."""

    pixels: list[FloatArray] = field(default_factory=list)
    studies: list[list[ImageFacts]] = field(default_factory=list)

    @property
    def stacked(self) -> FloatArray:
        """All pixels, [I, 1, S, S]."""
        return np.stack(self.pixels)

    @property
    def owners(self) -> NDArray[np.int64]:
        """The index of the study of each image, [I]."""
        return np.repeat(np.arange(len(self.studies)), [len(images) for images in self.studies])


class ZeroShotModel:
    """A loaded checkpoint. Make one with `medfilip.load`.

    An image is a path or ``s3://`` place of a DICOM, PNG or JPEG file, the bytes of one, a greyscale ``uint8`` or
    ``uint16`` array ``[H, W]``, a PIL image or a `Radiograph`. A list stands for several images, and a list within it
    for a study of several images, whose views are pooled.

    Examples
    --------
    >>> import medfilip
    >>> model = medfilip.load(checkpoint)
    >>> model.encode_image(image).shape, model.encode_text(["no mass", "mass"]).shape
    ((16,), (2, 16))
    >>> found = model.diagnose(image, ["pleural_effusion", "small left pleural effusion"])
    >>> found["pleural_effusion"].calibrated, 0 < found[1].probability < 1
    (True, True)
    >>> print(found)  # doctest: +ELLIPSIS
    label                        probability  calibration  decision   positive  negative
    pleural_effusion             ...
    small left pleural effusion  ...
    synthetic training data; research use only...
    """

    def __init__(
        self, diagnoser: Diagnoser, *, limits: ImageLimits | None = None, store_size: int = DEFAULT_STORE_SIZE
    ) -> None:
        self.diagnoser, self._answering = diagnoser, Answering(diagnoser)
        self._limits, self._store_size = limits or ImageLimits(), store_size

    @classmethod
    def load(cls, place: str | Path | None = None, device: str = "cpu") -> ZeroShotModel:
        """Load a checkpoint; see `medfilip.load`."""
        place = DEFAULT_CHECKPOINT if place is None else place
        if not isinstance(place, str | os.PathLike):
            raise _wrong(
                f"The place of a checkpoint cannot be a {type(place).__name__}.", "Give a path or s3:// place."
            )
        chosen = _device(device)
        return cls(Diagnoser.load(local_copy(find_checkpoint(Location.parse(place))), device=chosen))

    def __repr__(self) -> str:
        return f"ZeroShotModel({self.fingerprint}, {self.training_data}, {self.image_size} px, D={self.embed_dim})"

    @property
    def fingerprint(self) -> str:
        """Names the model: weights and configuration."""
        return self.diagnoser.fingerprint

    @property
    def training_data(self) -> str:
        """What the model learned from: ``synthetic training data`` or ``licensed corpus``."""
        return SYNTHETIC if self.diagnoser.versions.synthetic else LICENSED

    @property
    def image_size(self) -> int:
        """Side of the model's input, in pixels."""
        return self.diagnoser.image_size

    @property
    def embed_dim(self) -> int:
        """Dimension of the joint space."""
        return self.diagnoser.model.config.embed_dim

    def preprocess(self, image: GivenImage) -> FloatArray:
        """Turn one image into model input: float32 ``[1, S, S]``, as the endpoint does."""
        return self._prepared(image)[0]

    def encode_image(self, image: GivenImage | Sequence[GivenImage | Sequence[GivenImage]]) -> FloatArray:
        """Embed an image ``[D]``, or a list of images and studies ``[N, D]``; float32, unit length.

        Raises
        ------
        MedfilipError
            ``REQUEST_INVALID`` for another type or an empty study; ``SOURCES_DIFFER`` and ``IMAGE_DUPLICATE`` for a
            study of images that cannot be one; ``INPUT_NOT_FOUND`` and the ``IMAGE_*`` codes for
            what cannot be read. In a list the message says which image.
        """
        single = not isinstance(image, list | tuple)
        parts = [
            self.diagnoser.join(self.diagnoser.image_features(batch.stacked), batch.owners)
            for batch in self._batches([image] if single else image)
        ]
        embedding_ND: FloatArray = np.concatenate([np.zeros((0, self.embed_dim), np.float32), *parts])
        if not single:
            return embedding_ND
        first_D: FloatArray = embedding_ND[0]
        return first_D

    def encode_text(self, text: str | Sequence[str]) -> FloatArray:
        """Embed a text ``[D]``, or a list of texts ``[T, D]``; float32, unit length. Long texts are cut.

        A text is embedded as it is. Labels are better asked for through `diagnose`, which writes prompts as the model
        was trained on them.
        """
        texts = _strings(text, "text")
        embedding_TD = self.diagnoser.encode_texts(texts)
        return embedding_TD[0] if isinstance(text, str) else embedding_TD

    # A string is a sequence of strings to the type checker; here it is always one path.
    @overload
    def diagnose(  # type: ignore[overload-overlap]
        self, image: GivenImage, labels: str | Sequence[str] | None = None, **asked: Unpack[Asked]
    ) -> ImageDiagnosis: ...
    @overload
    def diagnose(
        self,
        image: Sequence[GivenImage | Sequence[GivenImage]],
        labels: str | Sequence[str] | None = None,
        **asked: Unpack[Asked],
    ) -> list[ImageDiagnosis]: ...
    def diagnose(
        self,
        image: GivenImage | Sequence[GivenImage | Sequence[GivenImage]],
        labels: str | Sequence[str] | None = None,
        **asked: Unpack[Asked],
    ) -> ImageDiagnosis | list[ImageDiagnosis]:
        """Say how probable each label is, for an image, or for each entry of a list of images and studies.

        Parameters
        ----------
        image
            See `ZeroShotModel`.
        labels
            Ontology ids, their names, or short texts such as "small left pleural effusion"; ``None`` for the
            categories the model was calibrated for.
        asked
            What else is wanted; see `Asked`.

        Raises
        ------
        MedfilipError
            As `encode_image`; ``REQUEST_INVALID`` if there is no label, or one is empty or longer than 300 characters.
        """
        question = _question(labels, asked)
        bank = self._answering.bank(question)
        if not bank.labels:
            raise _wrong("There are no labels to diagnose.", "Give at least one, such as 'pneumothorax'.")
        single = not isinstance(image, list | tuple)
        told = []
        for batch in self._batches([image] if single else image):
            view_ID, pixels_I1SS, begin = self.diagnoser.image_features(batch.stacked), batch.stacked, 0
            for images in batch.studies:
                own = slice(begin, begin + len(images))
                answered = self._answering.answer(question, bank, view_ID[own], images, pixels_I1SS[own])
                told.append(
                    ImageDiagnosis(
                        answered.findings, tuple(images), answered.abstentions, answered.unfamiliarity,
                        self.training_data,
                    )
                )  # fmt: skip
                begin += len(images)
        return told[0] if single else told

    def _batches(self, entries: Any) -> Iterator[_Batch]:
        """Read images and studies, a bounded number at once."""
        batch = _Batch()
        for at, entry in enumerate(entries):
            images = entry if isinstance(entry, list | tuple) else [entry]
            if not images:
                raise _wrong(f"Entry {at} of the list is a study without images.", "Leave it out.")
            prepared = [self._of_list(image, at, len(entries)) for image in images]
            with _telling_entry(at, len(entries)):
                check_one_study(origin for _, _, origin in prepared)
            if batch.studies and len(batch.pixels) + len(prepared) > _IMAGES_AT_ONCE:
                yield batch
                batch = _Batch()
            batch.pixels += [pixels for pixels, _, _ in prepared]
            batch.studies.append([facts for _, facts, _ in prepared])
        if batch.studies:
            yield batch

    def _of_list(self, image: object, at: int, count: int) -> tuple[FloatArray, ImageFacts, Origin]:
        with _telling_entry(at, count):
            return self._prepared(image)

    def _prepared(self, image: object) -> tuple[FloatArray, ImageFacts, Origin]:
        radiograph = radiograph_of(image, self._limits, shared_decoder(self._limits))
        pixels_1SS: NDArray[np.float32] = to_model(to_store(radiograph.pixels, self._store_size), self.image_size)
        return pixels_1SS, image_facts(radiograph), origin_of(radiograph)


@contextmanager
def _telling_entry(at: int, count: int) -> Iterator[None]:
    """Let an error say which entry of a list it is about."""
    try:
        yield
    except MedfilipError as error:
        if count == 1:
            raise
        raise MedfilipError(error.code, f"Entry {at} of the list: {error.message}", fix=error.fix) from error


def _question(labels: str | Sequence[str] | None, asked: Asked) -> Question:
    described = asked.get("described") or {}
    told = {name: value for name, value in asked.items() if name != "described"}
    question = Question(
        labels=() if labels is None else tuple(_strings(labels, "label")),
        described=tuple(Described(name, tuple(_strings(texts, "attribute"))) for name, texts in described.items()),
        **told,  # type: ignore[arg-type]
    )
    if labels is not None and not question.labels and not described:
        raise _wrong("There are no labels to diagnose.", "Give at least one, such as 'pneumothorax'.")
    return question


def _strings(given: object, what: str) -> list[str]:
    texts = [given] if isinstance(given, str) else list(given) if isinstance(given, Sequence | np.ndarray) else None
    if texts is None or isinstance(given, bytes) or not all(isinstance(text, str) for text in texts):
        raise _wrong(f"A {what} must be a string.", f"Give a string or a list of strings as {what}s.")
    return [str(text) for text in texts]


def _device(name: str) -> str:
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"The device '{name}' is not there.",
            fix="Give cpu, or a device that this build of torch sees.",
        ) from error
    return name


def _wrong(message: str, fix: str) -> MedfilipError:
    return MedfilipError(ErrorCode.REQUEST_INVALID, message, fix=fix)
