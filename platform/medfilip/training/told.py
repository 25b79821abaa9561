"""What training reports told of their findings beside the category: the choices a model may be asked between."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np

from medfilip.findings.codes import CERTAINTIES, LATERALITIES, NONE, Codebook
from medfilip.findings.finding import Certainty
from medfilip.knowledge.slots import Slot
from medfilip.model.checkpoint import SlotCounts
from medfilip.training.pairs import Columns


def count_slots(columns: Columns, codebook: Codebook) -> SlotCounts:
    """Count, for each category, the severities, sides and sites of findings that are there or may be.

    A finding at several sites tells none of them.
    """
    found: defaultdict[str, defaultdict[Slot, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    counts = np.bincount(columns.statement_F, minlength=len(columns.statements))
    for statement, count in zip(columns.statements, counts.tolist(), strict=True):
        code = statement.code
        if CERTAINTIES[code["certainty"]] == Certainty.ABSENT or not count:
            continue
        told = found[codebook.categories[code["category"]]]
        if code["severity"] != NONE:
            told["severity"][codebook.severities[code["severity"]]] += count
        if code["laterality"] != NONE:
            told["laterality"][LATERALITIES[code["laterality"]]] += count
        if len(code["sites"]) == 1:
            told["site"][codebook.sites[code["sites"][0]]] += count
    return {name: {slot: dict(values) for slot, values in told.items()} for name, told in found.items() if told}
