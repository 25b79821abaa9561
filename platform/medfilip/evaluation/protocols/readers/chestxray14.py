"""ChestX-ray14: ``Data_Entry_2017.csv`` with labels between ``|``, and the two official lists of image names."""

from __future__ import annotations

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.protocols.folder import DataFolder
from medfilip.evaluation.protocols.listing import Listing
from medfilip.evaluation.protocols.protocol import Origin

_COLUMNS = ("Image Index", "Finding Labels", "Patient ID")
_FACTS = ("View Position", "Patient Gender", "Patient Age")


def read(folder: DataFolder, listing: Listing) -> None:
    """Fill a listing; see the module's text."""
    table = folder.needed("labels", _COLUMNS)
    origins = _origins(folder)
    images = folder.images()
    names, labels, patients = (table[name].to_pylist() for name in _COLUMNS)
    views, sexes, ages = (folder.values(table, name) for name in _FACTS)
    for name, said, patient, view, sex, age in zip(names, labels, patients, views, sexes, ages, strict=True):
        origin = origins.pop(name, None)
        if name is None or patient is None or said is None:
            listing.lacks["rows_without_name_patient_or_labels"] += 1
        elif origin is None:
            listing.lacks["images_in_no_list"] += 1
        else:
            present = said.split("|")
            listing.add(name, patient, origin, images.get(name), present=present, view=view, sex=sex, age=age)
    if origins:
        listing.lacks["listed_images_without_labels"] += len(origins)


def _origins(folder: DataFolder) -> dict[str, Origin]:
    lists: dict[Origin, list[str]] = {"train": folder.lines("train_val") or [], "test": folder.lines("test") or []}
    both = set(lists["train"]) & set(lists["test"])
    if both:
        raise MedfilipError(
            ErrorCode.SPLIT_LEAKS,
            f"{len(both)} images are in both lists, such as {', '.join(sorted(both)[:3])}.",
            fix="Give train_val_list.txt and test_list.txt as the NIH ships them.",
        )
    return {name: origin for origin, names in lists.items() for name in names}
