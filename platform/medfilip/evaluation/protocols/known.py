"""The labels of a data set as the truth that every evaluation and fine-tuning asks; its images are its studies."""

from __future__ import annotations

from medfilip.evaluation.protocols.table import ProtocolTable
from medfilip.evaluation.truth import Shown, Truth
from medfilip.findings.ontology import load_ontology
from medfilip.findings.truth import PRESENT, UNKNOWN


def truth_of(table: ProtocolTable) -> Truth:
    """Return what the labels of a data set say of its images, by image id."""
    shown = {
        image_id: {
            category: Shown(state == PRESENT)
            for category, state in zip(table.protocol.categories, states, strict=True)
            if state != UNKNOWN
        }
        for image_id, states in zip(table.image_ids, table.truth_NL.tolist(), strict=True)
    }
    return Truth.of((), load_ontology(), shown)
