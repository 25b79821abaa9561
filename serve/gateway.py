"""The way of one request through the parts, and what is said about its result."""

from __future__ import annotations

import asyncio
from typing import Protocol

from medfilip.answers import (
    SYNTHETIC,
    AnswerWarning,
    Diagnosis,
    ImageFacts,
    LabelFacts,
    Labels,
    ModelCard,
    ModelFacts,
)
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.quality import EXPLANATIONS, QualityFlag
from serve.messages import Decoded, FloatArray, Refused, Scored
from serve.request import DiagnoseRequest
from serve.settings import ServeSettings

_READY_S = 5.0


class Backend(Protocol):
    """The parts behind the gateway, wherever they run."""

    async def decode(self, data: bytes) -> Decoded | Refused:
        """Decode a file."""
        ...

    async def score(self, pixels: FloatArray, labels: tuple[str, ...] | None) -> Scored | Refused:
        """Score model input [1, S, S] against labels."""
        ...

    async def card(self) -> ModelCard:
        """Describe the model."""
        ...

    async def labels(self) -> tuple[LabelFacts, ...]:
        """Describe the categories."""
        ...


class Gateway:
    """Decodes, scores and words the answer, within the time and the number of images that the settings allow."""

    def __init__(self, backend: Backend, settings: ServeSettings) -> None:
        self._backend, self._settings = backend, settings
        self._admitted = 0
        self._card: ModelCard | None = None

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
                f"The endpoint works on max_admitted = {self._settings.gateway.max_admitted} images already.",
                fix="Send the request again after the seconds in Retry-After.",
            )
        self._admitted += 1

    def leave(self) -> None:
        """Give back the place that `admit` took."""
        self._admitted -= 1

    async def diagnose(self, request: DiagnoseRequest, request_id: str) -> Diagnosis:
        """Answer one request.

        Raises
        ------
        MedfilipError
            The refusal of a part, ``OVERLOADED`` or ``REQUEST_TIMEOUT``.
        """
        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                card = await self.card()
                decoded = await self._backend.decode(request.image)
                if isinstance(decoded, Refused):
                    raise decoded.error()
                scored = await self._backend.score(decoded.pixels, request.labels)
                if isinstance(scored, Refused):
                    raise scored.error()
        except TimeoutError as error:
            raise MedfilipError(
                ErrorCode.REQUEST_TIMEOUT,
                f"The diagnosis took longer than request_timeout_s = {self._settings.request_timeout_s:g} s.",
                fix="Send the request again; ask for fewer labels if it happens often.",
            ) from error
        return Diagnosis(
            request_id=request_id,
            findings=scored.findings,
            images=(decoded.facts,),
            warnings=(*request.warnings, *_warnings(decoded.facts, scored, card)),
            model=ModelFacts(
                fingerprint=card.fingerprint,
                label_set=scored.label_set,
                code_version=card.code_version,
                training_data=card.training_data,
            ),
        )

    async def card(self) -> ModelCard:
        """Return the model's card; it is asked for once, because a deployment never changes its model."""
        if self._card is None:
            self._card = await self._backend.card()
        return self._card

    async def labels(self) -> Labels:
        """Return the categories and the limits on labels."""
        return Labels(
            labels=await self._backend.labels(),
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


def _warnings(facts: ImageFacts, scored: Scored, card: ModelCard) -> list[AnswerWarning]:
    found: list[AnswerWarning] = []
    if card.training_data == SYNTHETIC:
        message = "The model was trained on synthetic studies; its answers are worthless for patients."
        found.append(AnswerWarning(code="synthetic_training_data", message=message))
    if facts.view != "frontal":
        message = f"The view of the image is {facts.view}; the model is meant for frontal images."
        found.append(AnswerWarning(code="view_not_frontal", message=message))
    found += [AnswerWarning(code=flag, message=EXPLANATIONS[QualityFlag(flag)]) for flag in facts.quality]
    uncalibrated = sum(not finding.calibrated for finding in scored.findings)
    if uncalibrated:
        message = f"{uncalibrated} of {len(scored.findings)} probabilities are not calibrated for their category."
        found.append(AnswerWarning(code="uncalibrated", message=message))
    if card.knowledge_changed:
        message = "Prompts are written from other visual knowledge than the model was trained with."
        found.append(AnswerWarning(code="knowledge_changed", message=message))
    return found
