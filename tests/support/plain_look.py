"""The look over all parts in plain words: sets of strings and one row after the other, as `look_over` must agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from medfilip.core.ids import keyed_fraction
from medfilip.reports.splits import SPLITS
from pipelines.look_over import TEMPLATE_PATIENTS, Verdict
from pipelines.row_index import IndexRow, decide_reports, find_duplicates


class PlainLook(NamedTuple):
    verdicts: list[str]
    addenda: dict[int, list[int]]
    patients: list[str]
    splits: list[str]


def plain_look(reports: list[IndexRow], images: list[IndexRow], key: bytes, shares: Mapping[str, float]) -> PlainLook:
    decisions = decide_reports(dict(enumerate(reports)))
    verdicts = [Verdict.STANDS.name] * (len(reports) + len(images))
    for row, code in decisions.refused.items():
        verdicts[row] = "SUPERSEDED" if code == "superseded" else "DUPLICATE"
    for row in decisions.merged:
        verdicts[row] = "MERGED"
    for row in find_duplicates(dict(enumerate(images))):
        verdicts[len(reports) + row] = "DUPLICATE"
    patient_of = {row.study: row.patient for row in reports}
    rows = [row._replace(patient=patient_of.get(row.study, row.patient)) for row in [*reports, *images]]
    readers: dict[str, set[str]] = {}
    for row in rows[: len(reports)]:
        readers.setdefault(row.content, set()).add(row.patient)
    templates = {content for content, patients in readers.items() if len(patients) > TEMPLATE_PATIENTS}
    splits = plain_splits(
        key,
        [
            (
                row.patient,
                (f"own:{at}" if at < len(reports) and row.content in templates else row.content, f"study:{row.study}"),
            )
            for at, row in enumerate(rows)
        ],
        shares,
        [(row.patient, row.split) for row in rows if row.split],
    )
    return PlainLook(verdicts, decisions.addenda, [row.patient for row in rows], [splits[row.patient] for row in rows])


def plain_splits(
    key: bytes,
    groups: Iterable[tuple[str, Iterable[str]]],
    shares: Mapping[str, float],
    stated: Iterable[tuple[str, str]] = (),
) -> dict[str, str]:
    """Return patient → split; ``groups`` are patients with what they share, ``stated`` patients with a split."""
    parent: dict[str, str] = {}
    owner: dict[str, str] = {}

    def find(patient: str) -> str:
        while parent[patient] != patient:
            patient = parent[patient]
        return patient

    def further(known: str | None, split: str) -> str:
        return split if known is None else max(known, split, key=SPLITS.index)

    for patient, hashes in groups:
        parent.setdefault(patient, patient)
        for content in hashes:
            first, second = find(owner.setdefault(content, patient)), find(patient)
            parent[max(first, second)] = min(first, second)
    official: dict[str, str] = {}
    followed: dict[str, str] = {}
    for patient, split in stated:
        official[patient] = further(official.get(patient), split)
        followed[find(patient)] = further(followed.get(find(patient)), split)

    def draw(patient: str) -> str:
        bound = 0.0
        for split, share in shares.items():
            bound += share
            if keyed_fraction(key, patient) < bound:
                return split
        return SPLITS[-1]

    return {patient: official.get(patient) or followed.get(find(patient)) or draw(find(patient)) for patient in parent}
