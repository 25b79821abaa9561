"""Counts of a data set against those that its publication documents."""

from __future__ import annotations

from medfilip.evaluation.protocols.listing import Listing
from medfilip.evaluation.protocols.protocol import Counts, Documented, Protocol


def matching_release(protocol: Protocol, listing: Listing) -> tuple[str | None, list[str]]:
    """Return the documented release whose counts the tables have, and else how they differ from the nearest one.

    Both are empty for a protocol that documents no counts. Counted is all that the tables list, before views or other
    rows are left out.
    """
    differences = {release.release: _differences(release, listing) for release in protocol.documented}
    for release, found in differences.items():
        if not found:
            return release, []
    if not differences:
        return None, []
    wanted = {release.release: _documented(release) for release in protocol.documented}
    nearest = min(differences, key=lambda name: len(differences[name]) / wanted[name])
    return None, [f"{difference} in {nearest}" for difference in differences[nearest]]


def _documented(release: Documented) -> int:
    every = (release.total, *release.by_origin.values())
    return sum(number is not None for counts in every for number in (counts.images, counts.patients))


def _differences(release: Documented, listing: Listing) -> list[str]:
    patients = {patient for found in listing.patients.values() for patient in found}
    found = [("", release.total, Counts(images=sum(listing.images.values()), patients=len(patients)))]
    for origin, counts in release.by_origin.items():
        listed = Counts(images=listing.images[origin], patients=len(listing.patients.get(origin, ())))
        found.append((f" of the part '{origin}'", counts, listed))
    return [
        f"{is_there} {what}{where} where {'at least ' if release.at_least else ''}{wanted} are documented"
        for where, counts, listed in found
        for what, wanted, is_there in (
            ("images", counts.images, listed.images),
            ("patients", counts.patients, listed.patients),
        )
        if wanted is not None and is_there is not None and not _fits(is_there, wanted, at_least=release.at_least)
    ]


def _fits(is_there: int, wanted: int, *, at_least: bool) -> bool:
    return is_there >= wanted if at_least else is_there == wanted
