"""Columns of what ``medfilip diagnose-batch`` writes; names and meanings are those of the endpoint's answer.

A change to them raises the version in `medfilip.storage.schemas`.
"""

from __future__ import annotations

import pyarrow as pa

_text = pa.string()
_texts = pa.list_(pa.string())

SLOT_CHOICE = pa.struct([("value", _text), ("share", pa.float64()), ("choices", pa.int16())])
"""The most likely value of a slot of a finding (`medfilip.answers.SlotChoice`)."""

OPERATING_POINT = pa.struct(
    [
        ("rule", _text),
        ("threshold", pa.float64()),
        ("sensitivity", pa.float64()),
        ("specificity", pa.float64()),
        ("positives", pa.int32()),
        ("negatives", pa.int32()),
    ]
)
"""What a decision was made by (`medfilip.answers.OperatingPointFacts`)."""

ATTRIBUTE_MATCH = pa.struct([("axis", _text), ("text", _text), ("score", pa.float64())])
"""How well a study fits a visual attribute of a finding (`medfilip.answers.AttributeMatch`)."""

DIAGNOSIS_FIELDS: list[tuple[str, pa.DataType]] = [
    ("study_id", _text),
    ("label", _text),
    ("category", _text),
    ("probability", pa.float64()),
    ("probability_low", pa.float64()),
    ("probability_high", pa.float64()),
    ("calibrated", pa.bool_()),
    ("calibration", _text),  # "category", "overall" or "none": the curve behind the probability
    ("positive_score", pa.float64()),
    ("negative_score", pa.float64()),
    ("decision", _text),  # "present", "absent" or "abstained"
    ("abstention", _text),  # "study", "view" or "uncertain"; null where something is decided
    ("operating_point", OPERATING_POINT),
    ("severity", SLOT_CHOICE),
    ("laterality", SLOT_CHOICE),
    ("site", SLOT_CHOICE),
    ("attributes", pa.list_(ATTRIBUTE_MATCH)),
    # What follows is said of the study, the same in each of its rows.
    ("abstentions", _texts),  # why nothing is decided about it: "not_chest", "unfamiliar_image"
    ("unfamiliarity", pa.float64()),
    ("images", pa.int16()),  # how many were looked at
    ("views", _texts),  # of each of them, in their order
    ("quality", _texts),  # flags of all of them, each once
    ("model", _text),  # fingerprint
    ("label_set", _text),  # fingerprint of the prompts of all labels, and of the model
]
"""One row a study and label."""

DIAGNOSED_IMAGE_FIELDS: list[tuple[str, pa.DataType]] = [
    ("image_id", _text),
    ("study_id", _text),
    ("position", pa.int16()),  # within the study, from 0
    ("path", _text),  # below the folder of images; null unless paths were kept
    ("view", _text),
    ("quality", _texts),
    ("rows", pa.int32()),  # of the decoded image
    ("columns", pa.int32()),
    ("photometric", _text),
    ("transfer_syntax", _text),
]
"""One row an image that a diagnosis rests on."""
