"""What the findings of one study say about a category: the labels that calibration and evaluation compare with."""

from __future__ import annotations

from collections.abc import Iterable

from medfilip.findings.finding import Certainty
from medfilip.findings.ontology import Ontology

PRESENT, ABSENT, UNKNOWN = 1, 0, -1


def category_truth(
    statements: Iterable[tuple[str, str]], category: str, ontology: Ontology, *, silent: int = UNKNOWN
) -> int:
    """Decide whether a study shows a category.

    Parameters
    ----------
    statements
        (category, certainty) of each finding of the study.
    category
        What is asked for, an ontology id.
    silent
        What silence means: `UNKNOWN`, or `ABSENT` where the source lists everything there is.

    Returns
    -------
    int
        1 if the category or a descendant is present, else -1 if one of them is uncertain, else 0 if the category or
        an ancestor is absent, else ``silent``.
    """
    below, above = ontology.descendants(category) | {category}, ontology.ancestors(category) | {category}
    said = set(statements)
    if any((name, Certainty.PRESENT) in said for name in below):
        return PRESENT
    if any((name, Certainty.UNCERTAIN) in said for name in below):
        return UNKNOWN
    return ABSENT if any((name, Certainty.ABSENT) in said for name in above) else silent
