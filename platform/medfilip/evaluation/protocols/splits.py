"""Who is in which split, and the proof that nobody is in two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.protocols.listing import Listing
from medfilip.evaluation.protocols.protocol import EVALUATED

_RANK = {"test": 2, "validation": 1, "train": 0}
_SHOWN = 3


@dataclass(frozen=True)
class Assigned:
    """The split of each row of a listing.

    Attributes
    ----------
    splits_N
        ``"train"``, ``"validation"`` or ``"test"``; empty for an image that is left out.
    shared_patients
        How many patients the data set has in several splits.
    left_out
        How many of their images are left out.
    """

    splits_N: NDArray[np.str_]
    shared_patients: int = 0
    left_out: int = 0


def assign_splits(listing: Listing) -> Assigned:
    """Divide images as the protocol says.

    Raises
    ------
    MedfilipError
        ``SPLIT_LEAKS`` if a patient is in several splits and the protocol refuses that; ``SCHEMA_MISMATCH`` if the
        protocol does not say in which split an image is.
    """
    rule = listing.protocol.split
    hashed = rule.patient_hash
    # A data set that ships a validation split of its own is not divided any further.
    if hashed is not None and hashed.divided == "train" and "validation" in listing.images:
        hashed = None
    splits: list[str] = []
    for row in listing.rows:
        split = hashed.split_of(row.patient) if hashed is not None and row.origin == hashed.divided else row.origin
        if split not in _RANK:
            raise MedfilipError(
                ErrorCode.SCHEMA_MISMATCH,
                f"The protocol '{listing.protocol.id}' does not say in which split the part '{split}' is.",
                fix="Give its split rule a patient_hash.",
            )
        splits.append(split)
    return _disjoint(listing, splits)


def _disjoint(listing: Listing, splits: list[str]) -> Assigned:
    of_patient: dict[str, set[str]] = {}
    for row, split in zip(listing.rows, splits, strict=True):
        of_patient.setdefault(row.patient, set()).add(split)
    shared = {patient: found for patient, found in of_patient.items() if len(found) > 1}
    if shared and listing.protocol.split.shared_patients == "refuse":
        names = ", ".join(sorted(shared)[:_SHOWN])
        raise MedfilipError(
            ErrorCode.SPLIT_LEAKS,
            f"{len(shared)} patients are in more than one split, such as {names}.",
            fix="Give tables and lists of one release, as the data set ships them.",
        )
    highest = {patient: max(found, key=_RANK.__getitem__) for patient, found in shared.items()}
    kept = [
        split if highest.get(row.patient, split) == split else ""
        for row, split in zip(listing.rows, splits, strict=True)
    ]
    return Assigned(np.array(kept, np.str_), len(shared), kept.count(""))


def check_filled(images: Mapping[str, int]) -> None:
    """Refuse an evaluation without test images, or without images to choose thresholds on.

    Raises
    ------
    MedfilipError
        ``NOT_ENOUGH_DATA``.
    """
    empty = [split for split in EVALUATED if not images.get(split)]
    if empty:
        raise MedfilipError(
            ErrorCode.NOT_ENOUGH_DATA,
            f"The split '{empty[-1]}' has no images.",
            fix="Give all of the data set; thresholds come from its validation split, numbers from its test split.",
        )
