"""A finding while it is being assembled from a sentence, and the places it may be given."""

from __future__ import annotations

from medfilip.findings.finding import Alignment, Certainty, Hedge

Span = tuple[str, int, int]
"""Evidence: slot, first token, token after the last."""


class Place:
    """A side with the sites it stands beside: "right upper and lower lobes"."""

    __slots__ = ("end", "joined", "midline", "plural", "sides", "sites", "spans", "start")

    def __init__(self, start: int, end: int, *, joined: bool = False) -> None:
        self.start = start
        self.end = end
        self.sides: list[str] = []
        self.sites: list[str] = []
        self.spans: list[Span] = []
        self.plural = False
        self.midline = False  # begins with a site that shares no side with the place before it
        self.joined = joined  # to the place before it, by "and" or a comma


class Mention:
    """A finding of a sentence; ``start`` and ``end`` are token numbers.

    ``denial_end`` is the token up to which a denial may stand: inside a composed finding it stands between the bearer
    and its state ("the heart is not enlarged").
    """

    __slots__ = (
        "alignment", "bearer", "category", "certainty", "change", "chronicity", "count", "degrees", "denial_end", "end",
        "evidence", "hedge", "inherited", "patterns", "places", "position", "severity", "size", "size_mm", "start",
    )  # fmt: skip

    def __init__(
        self, start: int, end: int, category: str, certainty: Certainty | None, alignment: Alignment, denial_end: int
    ) -> None:
        self.start = start
        self.end = end
        self.category = category
        self.certainty = certainty
        self.alignment = alignment
        self.denial_end = denial_end
        self.bearer = ""
        self.hedge: Hedge | None = None
        self.severity: str | None = None
        self.size: str | None = None
        self.size_mm: float | None = None
        self.count: int | None = None
        self.change: str | None = None
        self.chronicity: str | None = None
        self.position: str | None = None
        self.patterns: list[str] = []
        self.places: list[Place] = []
        self.evidence: list[Span] = []
        self.degrees: list[tuple[str, str, int, int]] = []  # every severity and size, with its tokens
        self.inherited = False  # whether its places are those of the observation it explains
