"""A data set read by its protocol: images, patients, splits and truth, with the record that locks them.

Legend of tensor names: N images, L categories.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint
from medfilip.evaluation.protocols.documented import matching_release
from medfilip.evaluation.protocols.folder import DataFolder
from medfilip.evaluation.protocols.listing import Listing
from medfilip.evaluation.protocols.protocol import EVALUATED, Counts, Protocol
from medfilip.evaluation.protocols.readers import (
    chestxray14,
    chexpert5,
    covidx,
    padchest,
    rsna,
    siim_acr,
    vindr_cxr,
)
from medfilip.evaluation.protocols.record import Record
from medfilip.evaluation.protocols.splits import Assigned, assign_splits, check_filled
from medfilip.evaluation.protocols.truth import category_states, contradictions
from medfilip.storage.location import Location

Reader = Callable[[DataFolder, Listing], None]
READERS: dict[str, Reader] = {
    "chestxray14": chestxray14.read,
    "rsna": rsna.read,
    "vindr_cxr": vindr_cxr.read,
    "covidx": covidx.read,
    "chexpert5": chexpert5.read,
    "padchest": padchest.read,
    "siim_acr": siim_acr.read,
}
"""Reader of each protocol, by its id."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ProtocolTable:
    """The images of a data set that are on disk, by its protocol.

    Attributes
    ----------
    protocol
        The protocol.
    image_ids, names, patients, views
        Of each image: its id, its path below the data's folder, its patient, and PA or AP where known.
    people
        Sex and age of each image's patient as the data set writes them, where its tables do.
    sizes
        Bytes of each file.
    splits_N
        ``"train"``, ``"validation"`` or ``"test"``.
    truth_NL
        1 present, 0 absent, -1 unknown; a column for each of ``protocol.categories``.
    record
        Counts and hashes.
    """

    protocol: Protocol
    image_ids: list[str]
    names: list[str]
    patients: list[str]
    views: list[str | None]
    people: list[tuple[str | None, str | None]]
    sizes: list[int]
    splits_N: NDArray[np.str_]
    truth_NL: NDArray[np.int8]
    record: Record

    def rows(self, split: str) -> Ints:
        """Positions of a split's images."""
        return np.flatnonzero(self.splits_N == split)


def read_protocol(protocol: Protocol, data: Location, *, allow_partial: bool = False) -> ProtocolTable:
    """Read a data set as its protocol says, and check it.

    Parameters
    ----------
    protocol
        From `medfilip.evaluation.protocols.protocol.load_protocol`.
    data
        Folder below which the data set lies as it is shipped.
    allow_partial
        Take what is there of an incomplete data set; the record then says what is lacking.

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND``, ``COLUMN_MISSING`` or ``SCHEMA_MISMATCH`` for files that are not the data set's;
        ``LABEL_UNKNOWN``, ``IMAGE_DUPLICATE``; ``SPLIT_MISMATCH`` for a file with another hash than the protocol pins;
        ``SPLIT_LEAKS`` if patients are in several splits; ``DATA_INCOMPLETE`` if images are missing or counts differ
        from the documented ones; ``NOT_ENOUGH_DATA`` for an empty split.
    """
    folder = DataFolder(data, protocol)
    listing = Listing(protocol)
    READERS[protocol.id](folder, listing)
    _check_pinned(protocol, folder)
    listing.check(allow_partial=allow_partial)
    assigned = assign_splits(listing)
    release, lacks = matching_release(protocol, listing)
    if folder.ambiguous:
        lacks.append(f"{folder.ambiguous} image files with the name of another")
    lacks += [f"{count} {reason.replace('_', ' ')}" for reason, count in sorted(listing.lacks.items()) if count]
    missing = Counter(
        str(split)
        for row, split in zip(listing.rows, assigned.splits_N, strict=True)
        if row.name is None and split != ""
    )
    lacks += [f"{missing[split]} images of the split '{split}' not on disk" for split in EVALUATED if missing[split]]
    if lacks and not allow_partial:
        raise MedfilipError(
            ErrorCode.DATA_INCOMPLETE,
            f"The data are not {protocol.title} as documented: {'; '.join(lacks)}.",
            fix="Give all of it, or set allow_partial=true: the result then says that it is partial.",
        )
    if listing.repeated:
        lacks.append(f"{listing.repeated} rows that list an image again, counted once")
    return _table(folder, listing, assigned, _Found(release, lacks, missing))


@dataclass(frozen=True)
class _Found:
    """What the checks found, for the record."""

    release: str | None
    lacks: list[str]
    missing: Counter[str]


def _table(folder: DataFolder, listing: Listing, assigned: Assigned, found: _Found) -> ProtocolTable:
    protocol, splits_N = listing.protocol, assigned.splits_N
    said_NS = listing.said()
    states_NL = category_states(protocol, said_NS)
    kept = [at for at, row in enumerate(listing.rows) if row.name is not None and splits_N[at] != ""]
    # By id, so that neither the order of a table nor that of a folder decides anything.
    kept.sort(key=lambda at: listing.rows[at].image_id)
    rows = [listing.rows[at] for at in kept]
    splits_N, states_NL, said_NS = splits_N[kept], states_NL[kept], said_NS[kept]
    check_filled(Counter(map(str, splits_N)))
    image_ids, patients = [row.image_id for row in rows], [row.patient for row in rows]
    left_out = listing.left_out + Counter({"patient_of_another_split": assigned.left_out})
    ids_sha256 = {
        split: _digest(f"{image_ids[at]}\t{patients[at]}" for at in np.flatnonzero(splits_N == split))
        for split in EVALUATED
    }
    evaluated = np.flatnonzero(np.isin(splits_N, EVALUATED))
    truth = _digest(f"{image_ids[at]}\t{states_NL[at].tolist()}" for at in evaluated)

    record = Record(
        protocol=protocol.id,
        protocol_fingerprint=protocol.fingerprint,
        release=found.release,
        partial=tuple(found.lacks),
        files=dict(sorted(folder.sha256.items())),
        pinned=tuple(sorted(set(protocol.sha256) & set(folder.sha256))),
        listed={
            origin: Counts(images=count, patients=len(listing.patients[origin]))
            for origin, count in sorted(listing.images.items())
        },
        splits={split: _counts(patients, np.flatnonzero(splits_N == split)) for split in ("train", *EVALUATED)},
        views=dict(sorted(Counter(rows[at].view or "unknown" for at in evaluated).items())),
        left_out={reason: count for reason, count in sorted(left_out.items()) if count},
        missing=dict(sorted(found.missing.items())),
        shared_patients=assigned.shared_patients,
        patients_known=listing.patients_known,
        contradictory=contradictions(protocol, said_NS, states_NL),
        ids_sha256=ids_sha256,
        truth_sha256=truth,
        split_fingerprint=fingerprint([protocol.id, list(protocol.categories), ids_sha256, truth]),
    )
    return ProtocolTable(
        protocol,
        image_ids,
        [str(row.name) for row in rows],
        patients,
        [row.view for row in rows],
        [listing.people.get(row.image_id, (None, None)) for row in rows],
        [folder.size(str(row.name)) for row in rows],
        splits_N,
        states_NL,
        record,
    )


def _counts(patients: Sequence[str], rows: Ints) -> Counts:
    return Counts(images=len(rows), patients=len({patients[at] for at in rows}))


def _digest(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def _check_pinned(protocol: Protocol, folder: DataFolder) -> None:
    """Refuse files with another hash than the protocol knows, whatever partial data are allowed."""
    wrong = [name for name, known in protocol.sha256.items() if folder.sha256.get(name, known) != known]
    if wrong:
        raise MedfilipError(
            ErrorCode.SPLIT_MISMATCH,
            f"The file {wrong[0]} has not the SHA-256 that the protocol '{protocol.id}' pins.",
            fix="Give the file as the data set ships it.",
        )
