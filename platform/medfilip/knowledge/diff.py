"""What changed between two versions of knowledge, category by category and axis by axis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from medfilip.knowledge.knowledge import AXES, Attribute, Entry, Knowledge

Kind = Literal["added", "removed", "changed"]


class Change(NamedTuple):
    """One change.

    ``axis`` is an axis of attributes, ``descriptions``, ``review``, ``sources``, or empty where a whole entry came or
    went. ``old`` and ``new`` are empty on the side where there was nothing.
    """

    category: str
    axis: str
    kind: Kind
    old: str
    new: str


def compare(old: Knowledge, new: Knowledge) -> list[Change]:
    """Return all changes, in the order of the entries: those that stayed or went first, then those that came."""
    changes: list[Change] = []
    for category in dict.fromkeys([*old.entries, *new.entries]):
        before, after = old.entry(category), new.entry(category)
        if before is None:
            changes.append(Change(category, "", "added", "", _summary(after)))
        elif after is None:
            changes.append(Change(category, "", "removed", _summary(before), ""))
        elif before != after:
            changes += _of_entry(category, before, after)
    return changes


def _summary(entry: Entry | None) -> str:
    assert entry is not None
    phrases = sum(len(attributes) for attributes in entry.attributes.values())
    return f"{phrases} phrases, {len(entry.descriptions)} descriptions"


def _of_entry(category: str, before: Entry, after: Entry) -> Iterator[Change]:
    if before.review != after.review:
        yield Change(category, "review", "changed", before.review, after.review)
    for axis in AXES:
        yield from _of_axis(category, axis, before.attributes.get(axis, ()), after.attributes.get(axis, ()))
    for name in ("descriptions", "sources"):
        gone, came = _only(getattr(before, name), getattr(after, name))
        yield from (Change(category, name, "removed", text, "") for text in gone)
        yield from (Change(category, name, "added", "", text) for text in came)


def _of_axis(category: str, axis: str, before: tuple[Attribute, ...], after: tuple[Attribute, ...]) -> Iterator[Change]:
    # A phrase that is kept under other conditions has changed; other words are another phrase.
    olds, news = (
        [(attribute.text, describe(attribute)) for attribute in side if attribute not in other]
        for side, other in ((before, after), (after, before))
    )
    for text, told in olds:
        same = next((item for item in news if item[0] == text), None)
        if same is None:
            yield Change(category, axis, "removed", told, "")
        else:
            news.remove(same)
            yield Change(category, axis, "changed", told, same[1])
    yield from (Change(category, axis, "added", "", told) for _, told in news)
    if set(before) == set(after) and before != after:
        yield Change(category, axis, "changed", "", "another order")


def _only(before: tuple[str, ...], after: tuple[str, ...]) -> tuple[list[str], list[str]]:
    return [text for text in before if text not in after], [text for text in after if text not in before]


def describe(attribute: Attribute) -> str:
    """Write a phrase with the conditions it is used under.

    >>> describe(Attribute(text="thin rim of air", severities=("mild",)))
    'thin rim of air (severity: mild)'
    """
    named = (("severity", attribute.severities), ("site", attribute.sites), ("pattern", attribute.patterns))
    conditions = "; ".join(f"{slot}: {', '.join(ids)}" for slot, ids in named if ids)
    return f"{attribute.text} ({conditions})" if conditions else attribute.text
