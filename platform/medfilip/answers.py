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
Decision = Literal["present", "absent", "abstained"]
Abstention = Literal["not_chest", "unfamiliar_image"]
"""Why a whole answer abstains: what the model was never made for."""
FindingAbstention = Literal["study", "view", "uncertain"]
"""Why a finding is not decided: the whole answer abstains, no image of the study can show the finding, or its
probability lies so near the threshold that, of validation images, only the surest share was decided."""


class Answer(BaseModel):
    """Base of every answer: frozen, and tolerant of fields that a later version adds."""

    model_config = ConfigDict(frozen=True)


class OperatingPointFacts(Answer):
    """Where a label is called present, and what that reached on the images it was chosen on."""

    rule: str = Field(description="f1, youden, sensitivity; 'request' for a threshold of the request, 'half' for 0.5")
    threshold: float = Field(ge=0, le=1, description="of the probability")
    sensitivity: float | None = Field(None, description="on the validation images it was chosen on")
    specificity: float | None = Field(None, description="on the validation images it was chosen on")
    positives: int = Field(0, description="validation images with the finding")
    negatives: int = Field(0, description="validation images without it")


class SlotChoice(Answer):
    """The most likely value of a slot of a finding, among labels that differ in one word."""

    value: str = Field(description="as in the ontology, for example 'left', 'mild', 'right_lower_lobe'")
    share: float = Field(ge=0, le=1, description="of the softmax over the choices; not calibrated")
    choices: int = Field(description="how many values were compared")

    @property
    def settled(self) -> bool:
        """Whether it outweighs all others together; otherwise it is a guess."""
        return self.share >= 0.5


class AttributeMatch(Answer):
    """How well the image fits a visual attribute of a finding."""

    axis: str = Field(description="density, shape, margin, distribution, site, secondary_sign, or 'described'")
    text: str = Field(description="as in the knowledge, or as the request described it")
    score: float = Field(ge=-2, le=2, description="cosine of the image with the attribute less that with its absence")


class HeatMap(Answer):
    """Where the evidence for a finding lies."""

    image: int = Field(0, description="index of the image among those of the request")
    method: Literal["gradient", "patch"]
    width: int
    height: int
    peak: float = Field(description="largest contribution, in cosine; pixel value 255")
    png: str = Field(description="base64 of a grey PNG of the aspect of the image; 0 is no evidence for the finding")


class DiagnosedFinding(Answer):
    """What the model says about one label."""

    label: str = Field(description="as it was asked for")
    category: str | None = Field(description="ontology id when the label is a bare category, else null")
    probability: float = Field(ge=0, le=1)
    probability_low: float | None = Field(
        None, ge=0, le=1, description="95 % interval of the calibration curve at this score; null without one"
    )
    probability_high: float | None = Field(None, ge=0, le=1)
    calibrated: bool = Field(description="whether the probability comes from a curve fitted for this category")
    calibration: Basis = Field(description="the curve behind the probability: the category's, the overall one, or none")
    positive_score: float = Field(description="logit of the prompts that say the label is there")
    negative_score: float = Field(description="logit of the prompts that say it is not")
    decision: Decision = Field("abstained", description="by the operating point, or abstained")
    abstention: FindingAbstention | None = Field(None, description="why the decision is abstained, else null")
    operating_point: OperatingPointFacts | None = Field(None, description="what the decision was made by")
    severity: SlotChoice | None = Field(None, description="most likely severity, of what is called present")
    laterality: SlotChoice | None = Field(None, description="most likely side, of what is called present")
    site: SlotChoice | None = Field(None, description="most likely site, of what is called present")
    attributes: tuple[AttributeMatch, ...] = Field((), description="best matches first, where they were asked for")
    heat_map: HeatMap | None = Field(None, description="where it was asked for")


class ImageFacts(Answer):
    """What the file said about the image, and nothing about the patient."""

    view: Literal["frontal", "lateral", "unknown"]
    rows: int = Field(description="of the decoded image")
    columns: int = Field(description="of the decoded image")
    bits: int = Field(description="bits per pixel in the file")
    photometric: str = Field(description="photometric interpretation of the file")
    inverted: bool = Field(description="whether the grey values were inverted (MONOCHROME1)")
    transfer_syntax: str = Field(description="DICOM transfer syntax UID, image/png or image/jpeg")
    grey_values: Literal["voi_lut", "window", "full_range"] = Field(
        "full_range", description="what turned stored values into grey values"
    )
    preview: str | None = Field(None, description="base64 of a grey PNG as the model was shown it, where asked for")
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
    abstentions: tuple[Abstention, ...] = Field(
        (), description="why nothing is decided about this study; empty where decisions stand"
    )
    unfamiliarity: float | None = Field(
        None, ge=0, le=1, description="share of reference images nearer to what the model knows; null if not measured"
    )
    images: tuple[ImageFacts, ...] = Field(min_length=1, description="in the order they were sent")
    warnings: tuple[AnswerWarning, ...]
    stored: int = Field(0, description="DICOM objects that were stored in the archive of the study")
    model: ModelFacts
    intended_use: str = INTENDED_USE

    @property
    def abstained(self) -> bool:
        """Whether nothing is decided about this study."""
        return bool(self.abstentions)


class Embedding(Answer):
    """Answer of ``POST /v1/embed``: vectors of unit length in one space, so that their products are cosines."""

    request_id: str
    study: tuple[float, ...] | None = Field(description="of the images together; null if none was sent")
    texts: tuple[tuple[float, ...], ...] = Field(description="of each text, in their order")
    model: str = Field(description="fingerprint; vectors of different models cannot be compared")
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
