"""What the endpoint answers: one set of models that the service writes and the client reads.

Names are the same here, in the JSON and on every page. A field is added, never renamed; readers ignore fields they do
not know, so that an older client understands a newer endpoint.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

INTENDED_USE = "research use only"
SYNTHETIC = "synthetic training data"
LICENSED = "licensed corpus"

Basis = Literal["category", "overall", "none"]


class Answer(BaseModel):
    """Base of every answer: frozen, and tolerant of fields that a later version adds."""

    model_config = ConfigDict(frozen=True)


class DiagnosedFinding(Answer):
    """What the model says about one label."""

    label: str = Field(description="as it was asked for")
    category: str | None = Field(description="ontology id when the label is a bare category, else null")
    probability: float = Field(ge=0, le=1)
    calibrated: bool = Field(description="whether the probability comes from a curve fitted for this category")
    calibration: Basis = Field(description="the curve behind the probability: the category's, the overall one, or none")
    positive_score: float = Field(description="logit of the prompts that say the label is there")
    negative_score: float = Field(description="logit of the prompts that say it is not")


class ImageFacts(Answer):
    """What the file said about the image, and nothing about the patient."""

    view: Literal["frontal", "lateral", "unknown"]
    rows: int = Field(description="of the decoded image")
    columns: int = Field(description="of the decoded image")
    bits: int = Field(description="bits per pixel in the file")
    photometric: str = Field(description="photometric interpretation of the file")
    inverted: bool = Field(description="whether the grey values were inverted (MONOCHROME1)")
    transfer_syntax: str = Field(description="DICOM transfer syntax UID, image/png or image/jpeg")
    quality: tuple[str, ...] = Field((), description="what the pixels say against the image: not_chest, rotated, …")


class AnswerWarning(Answer):
    """Something that limits what the answer is worth."""

    code: str
    message: str


class ModelFacts(Answer):
    """Which model answered, for which labels."""

    fingerprint: str
    label_set: str = Field(description="fingerprint of the prompts of all labels of this answer, and of the model")
    code_version: str
    training_data: str


class Diagnosis(Answer):
    """Answer of ``POST /v1/diagnose``."""

    request_id: str
    findings: tuple[DiagnosedFinding, ...] = Field(description="in the order of the labels asked for")
    image: ImageFacts
    warnings: tuple[AnswerWarning, ...]
    model: ModelFacts
    intended_use: str = INTENDED_USE


class ModelCard(Answer):
    """Answer of ``GET /v1/model``."""

    fingerprint: str
    code_version: str = Field(description="version of medfilip that answers")
    trained_with: str = Field(description="version of medfilip that trained the model")
    training_data: str
    vision: str
    text: str
    image_size: int = Field(description="side of the model's input, in pixels")
    embed_dim: int
    ontology: str = Field(description="fingerprint")
    knowledge: str = Field(description="fingerprint of the knowledge in the training texts")
    knowledge_changed: bool = Field(description="whether prompts are written from other knowledge than that")
    calibrated_categories: tuple[str, ...]
    metrics: dict[str, float] = Field(description="as the training run reported them")
    intended_use: str = INTENDED_USE


class LabelFacts(Answer):
    """A category that can be asked for by its id or its label."""

    id: str
    label: str
    group: str
    default: bool = Field(description="whether it is answered when a request names no labels")
    calibrated: bool
    has_knowledge: bool = Field(description="whether its visual attributes are known")


class Labels(Answer):
    """Answer of ``GET /v1/labels``; besides these, any short text may be asked for."""

    labels: tuple[LabelFacts, ...]
    max_labels: int
    max_label_characters: int


class Health(Answer):
    """Answer of ``GET /healthz`` and ``GET /readyz``."""

    status: Literal["alive", "ready"]


class ErrorBody(Answer):
    """One failure, as `medfilip.core.errors.MedfilipError` tells it."""

    code: str
    message: str
    fix: str
    request_id: str


class ErrorAnswer(Answer):
    """The one shape of every error."""

    error: ErrorBody
