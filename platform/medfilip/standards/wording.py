"""What every standard form of an answer says in words: what it is for, what limits it, and by which model."""

from __future__ import annotations

import uuid

from medfilip.answers import LICENSED, DiagnosedFinding, Diagnosis
from medfilip.standards.codes import load_codes

ALGORITHM = "MedFILIP zero-shot diagnosis"
_ABSTENTIONS = {
    "not_chest": "the image looks like no chest radiograph",
    "unfamiliar_image": "the image is unlike those the model was trained on",
}


def remarks(diagnosis: Diagnosis) -> tuple[str, ...]:
    """Return the sentences that stand beside the findings: intended use, training data, abstention, warnings."""
    model = diagnosis.model
    sentences = [
        f"{diagnosis.intended_use.capitalize()}: made by software, reviewed by nobody, not for the care of patients."
    ]
    if model.training_data != LICENSED:
        sentences.append(f"Training data: {model.training_data}.")
    if diagnosis.abstained:
        sentences.append(abstention_words(diagnosis))
    sentences += [f"Warning ({warning.code}): {warning.message}" for warning in diagnosis.warnings]
    return tuple(sentences)


def abstention_words(diagnosis: Diagnosis, finding: DiagnosedFinding | None = None) -> str:
    """Return why a finding, or nothing at all, is decided, as a sentence."""
    if finding is not None and finding.abstention == "view":
        return "Not decided: no image of the study is of a view that shows this finding."
    if not diagnosis.abstained:
        return "Not decided: the probability lies too near the threshold."
    reasons = "; ".join(_ABSTENTIONS[reason] for reason in diagnosis.abstentions)
    return f"Nothing is decided about this study: {reasons}."


def device_uid(fingerprint: str) -> str:
    """Return the UID of a model as an observer: the same for the same model (PS3.5, B.2)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, f'{load_codes().scheme.uid} model {fingerprint}').int}"
