"""Train, validation and test by patient: what shares a patient, an image or a text shares a split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from medfilip.core.ids import keyed_fraction

SPLITS = ("train", "validation", "test")


_HELD_OUT = {split: rank for rank, split in enumerate(SPLITS)}


def assign_splits(
    key: bytes,
    groups: Iterable[tuple[str, Iterable[str]]],
    shares: Mapping[str, float],
    stated: Iterable[tuple[str, str]] = (),
) -> dict[str, str]:
    """Assign a split to every patient.

    A split that the corpus states for a patient wins; where it states two, the one further from training. A patient
    without one that shares content with such patients follows them, again to the split furthest from training.

    Parameters
    ----------
    key
        Project key: the draw is a keyed hash, so it is stable for a project and nobody else can predict it.
    groups
        (patient, hashes of all its report texts and images); patients that share a hash are drawn together, since an
        identical text or image on both sides of a split would be tested on what was trained on.
    shares
        Share of each split; they sum to 1.
    stated
        (patient, split) as the corpus states it.
    """
    parent: dict[str, str] = {}
    owner: dict[str, str] = {}

    def find(patient: str) -> str:
        root = patient
        while parent[root] != root:
            root = parent[root]
        while parent[patient] != root:
            parent[patient], patient = root, parent[patient]
        return root

    for patient, hashes in groups:
        parent.setdefault(patient, patient)
        for content in hashes:
            first, second = find(owner.setdefault(content, patient)), find(patient)
            # The smaller name is the root whatever the order of arrival: the draw must not depend on it.
            parent[max(first, second)] = min(first, second)
    official: dict[str, str] = {}
    followed: dict[str, str] = {}
    for patient, split in stated:
        official[patient] = _further(official.get(patient), split)
        followed[find(patient)] = _further(followed.get(find(patient)), split)

    def decide(patient: str) -> str:
        known = official.get(patient) or followed.get(find(patient))
        return known or _draw(keyed_fraction(key, find(patient)), shares)

    return {patient: decide(patient) for patient in parent}


def _further(known: str | None, split: str) -> str:
    return split if known is None else max(known, split, key=_HELD_OUT.__getitem__)


def _draw(fraction: float, shares: Mapping[str, float]) -> str:
    bound = 0.0
    for split, share in shares.items():
        bound += share
        if fraction < bound:
            return split
    return list(shares)[-1]
