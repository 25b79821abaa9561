"""Texts that are nearly right: the other side, another severity, the opposite.

A random text of the batch is easily told from an image's own; what has to be learned is the difference between "left"
and "right", "mild" and "severe", "effusion" and "no effusion" (method, section 5). Their targets come from the
similarity matrix like all others: 0 for the opposite, something between for a wrong side or severity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medfilip.findings.codes import CERTAINTIES, LATERALITIES, NONE, Codebook
from medfilip.findings.finding import Certainty, Laterality
from medfilip.findings.mirror import can_mirror, mirror_code

_PRESENT, _ABSENT = CERTAINTIES.index(Certainty.PRESENT), CERTAINTIES.index(Certainty.ABSENT)
_SIDES = (LATERALITIES.index(Laterality.LEFT), LATERALITIES.index(Laterality.RIGHT))


def alterations(code: Mapping[str, Any], codebook: Codebook) -> list[dict[str, Any]]:
    """Return the codes of findings that differ from a finding in one slot, in a fixed order.

    The opposite first (a present finding denied, an absent one claimed), then the other side, then the severity that
    is farthest away; an uncertain finding has no opposite. Each can be told by
    `medfilip.knowledge.inject.training_texts` after `Codebook.decode`.
    """
    found = []
    if code["certainty"] == _PRESENT:
        found.append({**code, "certainty": _ABSENT})
    elif code["certainty"] == _ABSENT:
        found.append({**code, "certainty": _PRESENT})
    if code["certainty"] != _ABSENT:
        if code["laterality"] in _SIDES and can_mirror([code], codebook):
            found.append(mirror_code(code))
        if code["severity"] != NONE:
            last = len(codebook.severities) - 1
            found.append({**code, "severity": last if code["severity"] <= last // 2 else 0})
    return found
