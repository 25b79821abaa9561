"""Views in words, as headers and tables write them: ``PA``, ``AP Supine``, ``left lateral``, ``Frontal`` ….

Oblique and swimmer's views are neither frontal nor lateral, and unknown here.
"""

from __future__ import annotations

import re

from medfilip.imaging.radiograph import RadiographView, ViewPosition

_VIEW_POSITIONS: dict[str, ViewPosition] = {
    "PA": "PA",
    "POSTEROANTERIOR": "PA",
    "AP": "AP",
    "ANTEROPOSTERIOR": "AP",
    "LL": "LL",
    "LLAT": "LL",
    "LEFTLATERAL": "LL",
    "LATERALLEFT": "LL",
    "RL": "RL",
    "RLAT": "RL",
    "RIGHTLATERAL": "RL",
    "LATERALRIGHT": "RL",
    "LATERAL": "LATERAL",
    "LAT": "LATERAL",
    "CROSSLATERAL": "LATERAL",
}
"""View Position (PS3.3, section C.8.7.1.1.1 and usage), or the meaning of a View Code (PS3.16, CID 4010): letters only,
without the words of posture."""

_POSTURE_WORDS = (
    "SUPINE ERECT UPRIGHT SEMIERECT SEMI SITTING STANDING PORTABLE MOBILE BEDSIDE CHEST VIEW PROJECTION AXIAL LLD RLD "
    "DECUBITUS RECUMBENT HORIZONTAL TABLE X XTABLE"
)
_POSTURES = frozenset(_POSTURE_WORDS.split())


def view_position_of(position: str | None) -> ViewPosition | None:
    """Return the view position that words name; ``None`` if they name none that is known."""
    words = re.findall(r"[A-Z]+", (position or "").upper())
    return _VIEW_POSITIONS.get("".join(word for word in words if word not in _POSTURES))


def view_of(view_position: ViewPosition | None) -> RadiographView:
    """Return the view that a view position gives."""
    if view_position is None:
        return "unknown"
    return "frontal" if view_position in ("PA", "AP") else "lateral"


def view_in_words(words: str | None) -> tuple[RadiographView, ViewPosition | None]:
    """Return view and view position that a table names: there ``L`` is a lateral, and ``frontal`` is enough."""
    plain = (words or "").strip().lower()
    if plain == "frontal":
        return "frontal", None
    position: ViewPosition | None = "LATERAL" if plain == "l" else view_position_of(words)
    return view_of(position), position
