"""What a mirrored image says of its findings: left becomes right in codes and in words.

Only findings that have a counterpart on the other side can be mirrored. The lingula and the middle lobe have none,
and an image that shows one of them stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from medfilip.findings.codes import LATERALITIES, Codebook
from medfilip.findings.finding import Laterality

ONE_SIDED_SITES = frozenset({"lingula", "middle_lobe", "azygos_lobe"})
"""Sites that exist on one side only."""

_LEFT, _RIGHT = LATERALITIES.index(Laterality.LEFT), LATERALITIES.index(Laterality.RIGHT)
_SWAPPED = {_LEFT: _RIGHT, _RIGHT: _LEFT}
_SIDE = re.compile(r"\b(left|right)(?=\b|_|-)", re.IGNORECASE)
_ONE_SIDED_WORDS = re.compile(r"\b(?:lingular?|middle lobe|azygos)\b", re.IGNORECASE)


def can_mirror(findings: Sequence[Mapping[str, Any]], codebook: Codebook) -> bool:
    """Whether all findings, given as rows of `medfilip.findings.codes.FindingCode`, have a counterpart."""
    return not any(codebook.sites[site] in ONE_SIDED_SITES for finding in findings for site in finding["sites"])


def mirror_code(finding: Mapping[str, Any]) -> dict[str, Any]:
    """Return a coded finding as its mirror image has it."""
    return {**finding, "laterality": _SWAPPED.get(finding["laterality"], finding["laterality"])}


def mirror_text(text: str) -> str | None:
    """Swap left and right in a text; ``None`` if it names what exists on one side only."""
    if _ONE_SIDED_WORDS.search(text):
        return None
    return _SIDE.sub(_other, text)


def _other(match: re.Match[str]) -> str:
    word = match[0]
    other = "right" if word.lower() == "left" else "left"
    if word.isupper():
        return other.upper()
    return other.capitalize() if word[0].isupper() else other
