"""Texts that are nearly right: the other side, another severity, the opposite.

A random text of the batch is easily told from an image's own; what has to be learned is the difference between "left"
and "right", "mild" and "severe", "effusion" and "no effusion" (method, section 5). Their targets come from the
similarity matrix like all others: 0 for the opposite, something between for a wrong side or severity.

Something between is nearly the target of the right one (.9 and 1), and what a pairwise objective gains by telling the
two apart is nearly nothing. So a finding is also *ranked* above itself with another side or severity, wherever the
study states nothing that would make the altered one true as well (`medfilip.training.step.ranking_share` says when,
and what it is worth).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from medfilip.findings.codes import CERTAINTIES, LATERALITIES, NONE, Codebook
from medfilip.findings.finding import Certainty, Laterality
from medfilip.findings.mirror import can_mirror, mirror_code

_PRESENT, _ABSENT = CERTAINTIES.index(Certainty.PRESENT), CERTAINTIES.index(Certainty.ABSENT)
_BILATERAL = LATERALITIES.index(Laterality.BILATERAL)
_SIDES = (LATERALITIES.index(Laterality.LEFT), LATERALITIES.index(Laterality.RIGHT))


RANKED_SLOTS = ("severity", "laterality")
"""Slots whose alteration stays similar, so that its target alone teaches little."""


def alterations(
    code: Mapping[str, Any], codebook: Codebook, severities: Collection[int] | None = None
) -> list[dict[str, Any]]:
    """Return the codes of findings that differ from a finding in one slot, in a fixed order.

    The opposite first (a present finding denied, an absent one claimed), then the other side, then other severities;
    an uncertain finding has no opposite. Each can be told by `medfilip.knowledge.inject.training_texts` after
    `Codebook.decode`.

    Parameters
    ----------
    severities
        Those to choose from, as the corpus tells them of this category: one that no image has would be told by its
        word alone. By default all.
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
            others = range(len(codebook.severities)) if severities is None else sorted(severities)
            found += [{**code, "severity": other} for other in others if other != code["severity"]]
    return found


def changed_slot(code: Mapping[str, Any], altered: Mapping[str, Any]) -> str:
    """Return the slot in which an alteration differs; a mirrored finding differs in its side, whatever its sites do."""
    return next(slot for slot in ("certainty", "laterality", "severity") if code[slot] != altered[slot])


def outranks(code: Mapping[str, Any], altered: Mapping[str, Any], others: Iterable[Mapping[str, Any]]) -> bool:
    """Whether a finding is surely truer of its image than its alteration, by all that the image's report states.

    Parameters
    ----------
    others
        Codes of all findings of the report: one of the same category with the altered value, or on both sides, makes
        the alteration true as well.
    """
    slot = changed_slot(code, altered)
    if slot not in RANKED_SLOTS:
        return False
    values = {altered[slot], _BILATERAL} if slot == "laterality" else {altered[slot]}
    alike = (other for other in others if other["category"] == code["category"] and other["certainty"] != _ABSENT)
    return not any(other[slot] in values for other in alike)
