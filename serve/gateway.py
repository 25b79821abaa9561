"""The way of one request through the parts, and what is said about its result."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

from medfilip.answers import (
    SYNTHETIC,
    Abstention,
    AnswerWarning,
    Diagnosis,
    Embedding,
    ImageFacts,
    LabelFacts,
    Labels,
    ModelCard,
    ModelFacts,
)
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.one_study import check_one_study
from medfilip.imaging.quality import EXPLANATIONS, QualityFlag
from medfilip.model.question import Question
from serve.archive import Archives, StudyReference
from serve.messages import Answered, Decoded, Embedded, Refused, Told
from serve.metrics import EndpointMetrics
from serve.rendering import Form
from serve.request import DiagnoseRequest, EmbedRequest
from serve.settings import ServeSettings

_READY_S = 5.0
_CARD_S = 2.0
_T = TypeVar("_T")
_ABSTENTIONS: dict[Abstention, str] = {
    "not_chest": "The pixels do not look like a chest radiograph; nothing is decided.",
    "unfamiliar_image": "The image is unlike every image the model was calibrated on; nothing is decided.",
}


class Backend(Protocol):
    """The parts behind the gateway, wherever they run."""

    async def decode(self, data: bytes, image_size: int, preview: bool) -> Decoded | Refused:
        """Decode a file for a model of that input; ``preview`` asks for a picture of it as well."""
        ...

    async def render(self, form: Form, diagnosis: Diagnosis, files: Sequence[bytes]) -> tuple[bytes, ...] | Refused:
        """Write an answer about files in another form."""
        ...

    async def answer(self, question: Question, images: Sequence[Decoded]) -> Told | Refused:
        """Answer a question about the images of one study."""
        ...

    async def embed(self, images: Sequence[Decoded], texts: Sequence[str]) -> Embedded | Refused:
        """Embed the images of one study, texts, or both."""
        ...

    async def card(self) -> ModelCard:
        """Describe the model."""
        ...

    async def labels(self) -> tuple[LabelFacts, ...]:
        """Describe the categories."""
        ...


class Gateway:
    """Decodes, scores and words the answer, within the time and the number of images that the settings allow."""

    def __init__(self, backend: Backend, settings: ServeSettings, metrics: EndpointMetrics | None = None) -> None:
        self._backend, self._settings = backend, settings
        self._archives = Archives(settings.pacs, settings.max_images, settings.max_body_bytes)
        self._admitted = 0
        self._card: ModelCard | None = None
        self._card_until = 0.0
        self._metrics = metrics or EndpointMetrics()

    def admit(self) -> None:
        """Take one of ``gateway.max_admitted`` places, before the body is read; `leave` gives it back.

        Raises
        ------
        MedfilipError
            ``OVERLOADED`` if none is free.
        """
        if self._admitted >= self._settings.gateway.max_admitted:
            raise MedfilipError(
                ErrorCode.OVERLOADED,
                f"The endpoint works on max_admitted = {self._settings.gateway.max_admitted} requests already.",
                fix="Send the request again after the seconds in Retry-After.",
            )
        self._admitted += 1

    def leave(self) -> None:
        """Give back the place that `admit` took."""
        self._admitted -= 1

    async def diagnose(
        self, request: DiagnoseRequest, request_id: str, timings: dict[str, float] | None = None
    ) -> Diagnosis:
        """Answer one request; the seconds of its stages are added to ``timings``.

        Raises
        ------
        MedfilipError
            The refusal of a part, ``OVERLOADED`` or ``REQUEST_TIMEOUT``.
        """
        async with self.in_time():
            decoded, told = await self._asked(
                request.images, request.preview, partial(self._answered, request, timings), timings
            )
        facts, card, answered = tuple(_with_preview(item) for item in decoded), told.card, told.answered
        return Diagnosis(
            request_id=request_id,
            findings=answered.findings,
            abstentions=answered.abstentions,
            unfamiliarity=answered.unfamiliarity,
            images=facts,
            warnings=(*request.warnings, *_warnings(facts, answered, card)),
            model=ModelFacts(
                fingerprint=card.fingerprint,
                label_set=answered.label_set,
                code_version=card.code_version,
                training_data=card.training_data,
            ),
        )

    async def fetched(self, request: DiagnoseRequest) -> DiagnoseRequest:
        """Return the request with its images: those of an archive are fetched now.

        Raises
        ------
        MedfilipError
            As `serve.archive.Archives.fetch`, or ``REQUEST_TIMEOUT``.
        """
        if request.study is None:
            return request
        async with self.in_time():
            images = await self._archives.fetch(request.study, within_s=self._settings.request_timeout_s)
            return replace(request, images=images)

    async def stored_form(self, request: DiagnoseRequest, diagnosis: Diagnosis) -> tuple[Diagnosis, tuple[bytes, ...]]:
        """Return the DICOM objects that the request asks to store, none for most, and the answer that counts them.

        Raises
        ------
        MedfilipError
            As `render`.
        """
        if request.study is None or not request.study.store:
            return diagnosis, ()
        objects = await self.render("objects", diagnosis, request.images)
        return diagnosis.model_copy(update={"stored": len(objects)}), objects

    async def store(self, study: StudyReference, objects: Sequence[bytes]) -> None:
        """Store DICOM objects in the archive of their study, to the end, whether the caller waits for it or not.

        Raises
        ------
        MedfilipError
            As `serve.archive.Archives.store`.
        """
        await asyncio.shield(self._archives.store(study, objects))

    async def render(self, form: Form, diagnosis: Diagnosis, files: Sequence[bytes]) -> tuple[bytes, ...]:
        """Write an answer in another form.

        Raises
        ------
        MedfilipError
            As `serve.rendering.render`, or ``REQUEST_TIMEOUT``.
        """
        async with self.in_time():
            plain = tuple(image.model_copy(update={"preview": None}) for image in diagnosis.images)
            written = await self._backend.render(form, diagnosis.model_copy(update={"images": plain}), files)
        if isinstance(written, Refused):
            raise written.error()
        return written

    async def embed(self, request: EmbedRequest, request_id: str) -> Embedding:
        """Embed the images of one study, texts, or both.

        Raises
        ------
        MedfilipError
            As `diagnose`.
        """
        async with self.in_time():
            _, embedded = await self._asked(
                request.images, False, lambda decoded: self._backend.embed(decoded, request.texts)
            )
        return Embedding(
            request_id=request_id,
            study=None if embedded.study_D is None else tuple(embedded.study_D.tolist()),
            texts=tuple(tuple(row) for row in embedded.text_TD.tolist()),
            model=embedded.model,
        )

    async def _answered(
        self, request: DiagnoseRequest, timings: dict[str, float] | None, decoded: Sequence[Decoded]
    ) -> Told | Refused:
        with self._metrics.stage("encoder", timings):
            # Pictures have been where they had to be: an encoder does without.
            told = await self._backend.answer(request.question, [replace(item, preview=None) for item in decoded])
        if isinstance(told, Told) and timings is not None:
            timings |= told.seconds
        return told

    async def _asked(
        self,
        files: Sequence[bytes],
        preview: bool,
        ask: Callable[[list[Decoded]], Awaitable[_T | Refused]],
        timings: dict[str, float] | None = None,
    ) -> tuple[list[Decoded], _T]:
        """Decode files and ask an encoder about them; once more if the model was replaced in between."""
        for again in (True, False):
            card = await self.card()
            with self._metrics.stage("decoder", timings):
                decoded = await self._decode(files, card.image_size, preview)
            found = await ask(decoded)
            if not isinstance(found, Refused):
                return decoded, found
            if found.code != ErrorCode.MODEL_CHANGED or not again:
                raise found.error()
            self._card_until = 0.0
        raise AssertionError("unreachable")

    async def _decode(self, files: Sequence[bytes], image_size: int, preview: bool) -> list[Decoded]:
        """Decode all images of a study; the first that is refused is told by its number."""
        found = await asyncio.gather(*(self._backend.decode(file, image_size, preview) for file in files))
        decoded = []
        for number, item in enumerate(found, start=1):
            if isinstance(item, Refused):
                where = f"Image {number}: " if len(found) > 1 else ""
                raise MedfilipError(item.code, where + item.message, fix=item.fix)
            decoded.append(item)
        check_one_study(item.origin for item in decoded)
        return decoded

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Bound the work within: ``REQUEST_TIMEOUT`` when it takes longer than ``request_timeout_s``."""
        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                yield
        except TimeoutError as error:
            raise MedfilipError(
                ErrorCode.REQUEST_TIMEOUT,
                f"The diagnosis took longer than request_timeout_s = {self._settings.request_timeout_s:g} s.",
                fix="Send the request again; ask for fewer labels if it happens often.",
            ) from error

    async def card(self) -> ModelCard:
        """Return the model's card, as an encoder gave it within the last seconds: a model may be replaced."""
        if self._card is None or time.monotonic() >= self._card_until:
            async with self.in_time():
                self._card = await self._backend.card()
            self._card_until = time.monotonic() + _CARD_S
        return self._card

    async def labels(self) -> Labels:
        """Return the categories and the limits on labels."""
        async with self.in_time():
            known = await self._backend.labels()
        return Labels(
            labels=known,
            max_labels=self._settings.max_labels,
            max_label_characters=self._settings.max_label_characters,
        )

    async def ready(self) -> None:
        """Return when an encoder answers.

        Raises
        ------
        MedfilipError
            ``OVERLOADED`` if none does within five seconds.
        """
        try:
            async with asyncio.timeout(_READY_S):
                await self._backend.card()
        except TimeoutError as error:
            raise MedfilipError(
                ErrorCode.OVERLOADED, f"No encoder answered within {_READY_S:g} s.", fix="Try again later."
            ) from error


def _with_preview(image: Decoded) -> ImageFacts:
    if image.preview is None:
        return image.facts
    return image.facts.model_copy(update={"preview": base64.b64encode(image.preview).decode()})


def _warnings(images: Sequence[ImageFacts], answered: Answered, card: ModelCard) -> list[AnswerWarning]:
    found = [AnswerWarning(code=code, message=_ABSTENTIONS[code]) for code in answered.abstentions]
    if card.training_data == SYNTHETIC:
        message = "The model was trained on synthetic studies; its answers are worthless for patients."
        found.append(AnswerWarning(code="synthetic_training_data", message=message))
    if not any(image.view == "frontal" for image in images):
        message = f"The view of the image is {images[0].view}; the model is meant for frontal images."
        found.append(AnswerWarning(code="view_not_frontal", message=message))
    flags = dict.fromkeys(flag for image in images for flag in image.quality)
    flags.pop("not_chest" if "not_chest" in answered.abstentions else "", None)
    found += [AnswerWarning(code=flag, message=EXPLANATIONS[QualityFlag(flag)]) for flag in flags]
    uncalibrated = sum(not finding.calibrated for finding in answered.findings)
    if uncalibrated:
        message = f"{uncalibrated} of {len(answered.findings)} probabilities are not calibrated for their category."
        found.append(AnswerWarning(code="uncalibrated", message=message))
    if card.knowledge_changed:
        message = "Prompts are written from other visual knowledge than the model was trained with."
        found.append(AnswerWarning(code="knowledge_changed", message=message))
    return found
