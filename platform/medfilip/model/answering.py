"""From an embedded study to an answer: decisions, abstention, details and reasons, the same for every way in.

Legend of tensor names: I images of a study, S side of the input, L labels, D joint dimension, T texts.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from medfilip.answers import (
    Abstention,
    AttributeMatch,
    Decision,
    DiagnosedFinding,
    FindingAbstention,
    HeatMap,
    ImageFacts,
    OperatingPointFacts,
    SlotChoice,
)
from medfilip.findings.ontology import Ontology, load_ontology
from medfilip.imaging.preprocess import letterbox, png_encode
from medfilip.knowledge.knowledge import Knowledge, load_knowledge
from medfilip.knowledge.prompts import Prompts
from medfilip.knowledge.slots import SLOTS, Slot, slot_label, slot_values
from medfilip.model.calibration import confidence_of
from medfilip.model.diagnoser import Diagnoser, FloatArray, LabelBank
from medfilip.model.heat_map import MapMethod
from medfilip.model.question import Answered, Question

MIN_TOLD = 8
"""A value of a slot is offered if so many findings of the training reports told it."""
UNFAMILIAR = 1.0
"""An image farther from what the model knows than every reference image is not decided about."""
_HALF = 0.5
_MAP_METHOD: MapMethod = "gradient"


class Answering:
    """Answers questions about embedded studies with one model. Call it from one thread at a time.

    Parameters
    ----------
    diagnoser
        The model. What its training reports told decides between which sides, severities and sites it chooses.
    unfamiliar_from
        Unfamiliarity from which nothing is decided.
    """

    def __init__(
        self,
        diagnoser: Diagnoser,
        *,
        unfamiliar_from: float = UNFAMILIAR,
        ontology: Ontology | None = None,
        knowledge: Knowledge | None = None,
    ) -> None:
        self._diagnoser, self._unfamiliar_from = diagnoser, unfamiliar_from
        self._ontology, self._knowledge = ontology or load_ontology(), knowledge or load_knowledge()

    @property
    def default_labels(self) -> tuple[str, ...]:
        """Categories that validation reports spoke about; for a model without calibration, those with knowledge."""
        known = self._diagnoser.calibration.categories or self._knowledge.entries
        return tuple(name for name in self._ontology.categories if name in known)

    def bank(self, question: Question) -> LabelBank:
        """Embed the labels of a question; prompts that were met before come from a cache."""
        labels = question.labels or (() if question.described else self.default_labels)
        named = self._diagnoser.encode_labels(labels)
        if not question.described:
            return named
        names = tuple(item.name for item in question.described)
        written = tuple(item.prompts() for item in question.described)
        # Their names may be those of categories, whose curves were not fitted on these prompts.
        return self._diagnoser.encode_prompts(
            (*labels, *names), (*named.prompts, *written), categories=(*named.categories, *(None for _ in names))
        )

    def answer(
        self,
        question: Question,
        bank: LabelBank,
        view_ID: FloatArray,
        images: Sequence[ImageFacts],
        pixels_I1SS: FloatArray,
    ) -> Answered:
        """Answer a question about one study.

        Parameters
        ----------
        question, bank
            What is asked, and `bank` of it.
        view_ID
            Output of `Diagnoser.image_features` for the images of the study, [I, D + F].
        images
            What their files said.
        pixels_I1SS
            Their pixels as the model takes them; looked at for heat maps only.
        """
        study_1D = self._diagnoser.join(view_ID, np.zeros(len(view_ID), np.int64))
        unfamiliarity, abstentions = self._abstentions(view_ID, images)
        found = []
        for at, finding in enumerate(self._scored(study_1D, bank)):
            decided = self._decided(finding, question, images, abstentions)
            if decided.decision == "present" and decided.category is not None:
                slots = {str(slot): self._choice(slot, decided.category, study_1D) for slot in SLOTS}
                decided = decided.model_copy(update=slots)
            if question.attributes:
                matches = self._attributes(at, decided, question, bank, study_1D)
                decided = decided.model_copy(update={"attributes": matches})
            found.append(decided)
        found = self._with_maps(found, question, bank, images, pixels_I1SS)
        return Answered(tuple(found), abstentions, unfamiliarity, bank.fingerprint)

    def _abstentions(
        self, view_ID: FloatArray, images: Sequence[ImageFacts]
    ) -> tuple[float | None, tuple[Abstention, ...]]:
        found: list[Abstention] = []
        if any("not_chest" in image.quality for image in images):
            found.append("not_chest")
        reference, unfamiliarity = self._diagnoser.familiarity, None
        if reference is not None:
            unfamiliarity = float(reference.unfamiliarity(self._diagnoser.texture(view_ID)).max())
            if unfamiliarity >= self._unfamiliar_from:
                found.append("unfamiliar_image")
        return unfamiliarity, tuple(found)

    def _scored(self, study_1D: FloatArray, bank: LabelBank) -> list[DiagnosedFinding]:
        scores = self._diagnoser.score(study_1D, bank)
        found = []
        for at, finding in enumerate(self._diagnoser.findings(scores, bank)[0]):
            interval = self._diagnoser.calibration.interval(scores.margins[:, at], bank.categories[at])
            if interval is not None:
                low, high = float(interval[0][0]), float(interval[1][0])
                finding = finding.model_copy(update={"probability_low": low, "probability_high": high})  # noqa: PLW2901
            found.append(finding)
        return found

    def _decided(
        self,
        finding: DiagnosedFinding,
        question: Question,
        images: Sequence[ImageFacts],
        abstentions: Sequence[Abstention],
    ) -> DiagnosedFinding:
        point, undecided = self._point(finding.category, question)
        sure = float(confidence_of(np.array([finding.probability]), point.threshold)[0]) >= undecided
        abstention: FindingAbstention | None = None
        if abstentions:
            abstention = "study"
        elif not self._can_be_seen(finding.category, images):
            abstention = "view"
        elif not sure:
            abstention = "uncertain"
        decision: Decision = "present" if finding.probability >= point.threshold else "absent"
        return finding.model_copy(
            update={
                "decision": "abstained" if abstention else decision,
                "abstention": abstention,
                "operating_point": point,
            }
        )

    def _point(self, category: str | None, question: Question) -> tuple[OperatingPointFacts, float]:
        """Return the operating point of a label, and how far from it a probability must lie, in logits."""
        calibration = self._diagnoser.calibration
        own = calibration.operating_point(category, question.operating_point)
        if question.threshold is not None:
            return OperatingPointFacts(rule="request", threshold=question.threshold), own.undecided if own else 0.0
        if own is None:
            return OperatingPointFacts(rule="half", threshold=_HALF), 0.0
        return OperatingPointFacts(**own.model_dump(exclude={"undecided"})), own.undecided

    def _can_be_seen(self, category: str | None, images: Sequence[ImageFacts]) -> bool:
        if category is None:
            return True
        views = self._ontology.categories[category].views
        return any(image.view == "unknown" or image.view in views for image in images)

    def _choice(self, slot: Slot, category: str, study_1D: FloatArray) -> SlotChoice | None:
        told = self._diagnoser.slots.get(category, {}).get(slot, {})
        values = [value for value in slot_values(slot, self._ontology) if told.get(value, 0) >= MIN_TOLD]
        if len(values) < 2:
            return None
        bank = self._diagnoser.encode_labels([slot_label(slot, value, category, self._ontology) for value in values])
        share_L: NDArray[np.float64] = softmax(self._diagnoser.score(study_1D, bank).positive_NL[0])
        best = int(share_L.argmax())
        return SlotChoice(value=values[best], share=float(share_L[best]), choices=len(values))

    def _attributes(
        self, at: int, finding: DiagnosedFinding, question: Question, bank: LabelBank, study_1D: FloatArray
    ) -> tuple[AttributeMatch, ...]:
        named = len(bank.labels) - len(question.described)
        if at >= named:
            told = [("described", text) for text in question.described[at - named].attributes]
            lead = finding.label
        else:
            entry = self._knowledge.entry(finding.category) if finding.category else None
            if entry is None or finding.category is None:
                return ()
            lead = self._ontology.label(finding.category)
            told = [(axis, phrase.text) for axis, phrases in entry.attributes.items() for phrase in phrases]
        texts = [f"{lead}. {text}" for _, text in told]
        written = [Prompts((text,), bank.prompts[at].negative) for text in texts]
        embedded = self._diagnoser.encode_prompts(texts, written)
        score_T = study_1D[0] @ (embedded.positive_LD - bank.negative_LD[at]).T
        best = np.argsort(-score_T, kind="stable")[: question.attributes]
        return tuple(AttributeMatch(axis=told[i][0], text=told[i][1], score=float(score_T[i])) for i in best)

    def _with_maps(
        self,
        found: list[DiagnosedFinding],
        question: Question,
        bank: LabelBank,
        images: Sequence[ImageFacts],
        pixels_I1SS: FloatArray,
    ) -> list[DiagnosedFinding]:
        wanted = [
            at
            for at, finding in enumerate(found)
            if question.heat_maps == "all" or (question.heat_maps == "present" and finding.decision == "present")
        ]
        if not wanted:
            return found
        map_ILSS = self._diagnoser.heat_maps(pixels_I1SS, bank.take(wanted), _MAP_METHOD)
        shown = list(found)
        for row, at in enumerate(wanted):
            shown[at] = found[at].model_copy(update={"heat_map": _heat_map(map_ILSS[:, row], images)})
        return shown


def _heat_map(map_ISS: FloatArray, images: Sequence[ImageFacts]) -> HeatMap:
    """Write the map of the image that speaks most for a finding, without the padding of the model's input."""
    cut = []
    for values_SS, image in zip(map_ISS, images, strict=True):
        top, left, height, width = letterbox((image.rows, image.columns), values_SS.shape[0])
        cut.append(values_SS[top : top + height, left : left + width])
    best = int(np.argmax([values.max() for values in cut]))
    peak = max(float(cut[best].max()), 0.0)
    grey = np.round(np.clip(cut[best] / peak, 0, 1) * 255) if peak > 0 else np.zeros_like(cut[best])
    png = png_encode(grey.astype(np.uint8))
    return HeatMap(
        image=best, method=_MAP_METHOD, width=grey.shape[1], height=grey.shape[0], peak=peak,
        png=base64.b64encode(png).decode(),
    )  # fmt: skip
