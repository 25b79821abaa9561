"""Answers made in memory, with every kind of finding that the contract knows."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from medfilip.answers import (
    SYNTHETIC,
    AnswerWarning,
    AttributeMatch,
    DiagnosedFinding,
    Diagnosis,
    HeatMap,
    ImageFacts,
    ModelFacts,
    OperatingPointFacts,
    SlotChoice,
)


def map_png(values: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def heat_map(values: np.ndarray | None = None, **changes: Any) -> HeatMap:
    if values is None:
        values = np.zeros((32, 32), np.uint8)
        values[8:16, 4:20] = 200
        values[10:12, 8:12] = 255
    told: dict[str, Any] = {"method": "gradient", "peak": 0.04, "png": map_png(values)}
    told |= {"width": values.shape[1], "height": values.shape[0]}
    return HeatMap(**(told | changes))


def finding(label: str = "pleural effusion", **changes: Any) -> DiagnosedFinding:
    told: dict[str, Any] = {
        "label": label,
        "category": "pleural_effusion",
        "probability": 0.83,
        "probability_low": 0.71,
        "probability_high": 0.9,
        "calibrated": True,
        "calibration": "category",
        "positive_score": 3.25,
        "negative_score": -1.5,
        "decision": "present",
        "operating_point": OperatingPointFacts(rule="f1", threshold=0.4, sensitivity=0.9, specificity=0.8, positives=9),
    }
    return DiagnosedFinding(**(told | changes))


def diagnosis(
    *findings: DiagnosedFinding, images: int = 1, size: tuple[int, int] = (64, 64), **changes: Any
) -> Diagnosis:
    facts = ImageFacts(
        view="frontal",
        rows=size[0],
        columns=size[1],
        bits=12,
        photometric="MONOCHROME2",
        inverted=False,
        transfer_syntax="1.2.840.10008.1.2.1",
    )
    told: dict[str, Any] = {
        "request_id": "req-0123",
        "findings": findings or all_kinds(),
        "images": (facts,) * images,
        "warnings": (AnswerWarning(code="synthetic_training_data", message="Trained on phantoms."),),
        "model": ModelFacts(
            fingerprint="0123456789abcdef", label_set="fedcba9876543210", code_version="0.1.0", training_data=SYNTHETIC
        ),
    }
    return Diagnosis(**(told | changes))


def all_kinds() -> tuple[DiagnosedFinding, ...]:
    """Return findings that are present with every slot, absent, abstained, without a public code and in words."""
    return (
        finding(
            severity=SlotChoice(value="moderate", share=0.6, choices=5),
            laterality=SlotChoice(value="left", share=0.7, choices=3),
            site=SlotChoice(value="lung_base", share=0.6, choices=8),
            attributes=(AttributeMatch(axis="density", text="homogeneous grey", score=0.12),),
            heat_map=heat_map(),
        ),
        finding("nodule", category="nodule", site=SlotChoice(value="right_upper_lobe", share=0.5, choices=4)),
        finding(
            "mild cardiomegaly",
            category=None,
            decision="absent",
            probability=0.1,
            probability_low=None,
            probability_high=None,
            calibrated=False,
            calibration="none",
        ),
        finding("costophrenic_angle_blunting", category="costophrenic_angle_blunting", decision="abstained"),
        finding(
            "bone lucency",
            category="bone_lucency",
            laterality=SlotChoice(value="bilateral", share=0.5, choices=3),
            severity=SlotChoice(value="borderline", share=0.5, choices=3),
            operating_point=None,
        ),
        finding("schräge Eintrübung über dem linken Zwerchfell " + "ä" * 250, category=None, decision="abstained"),
    )
