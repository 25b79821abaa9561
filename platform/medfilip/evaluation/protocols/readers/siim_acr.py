"""SIIM-ACR pneumothorax: ``train-rle.csv``, a row a mask or ``-1``, and DICOM files in folders of study and series.

The patient is that of the DICOM header, of which the first kilobytes are read.
"""

from __future__ import annotations

import io

from medfilip.core.errors import MedfilipError
from medfilip.evaluation.protocols.folder import DataFolder
from medfilip.evaluation.protocols.listing import Listing
from medfilip.imaging.dicom_file import guarded, text_of
from medfilip.imaging.run_lengths import EMPTY

_HEAD_BYTES = 64 << 10


def read(folder: DataFolder, listing: Listing) -> None:
    """Fill a listing; see the module's text."""
    images = folder.images()
    for image_id, runs in read_runs(folder, listing).items():
        name = images.get(f"{image_id}.dcm")
        if name is None:
            # Without its header nobody knows whose it is, and so in which split it belongs.
            listing.lacks["images_not_on_disk"] += 1
            listing.leave_out("not_on_disk", image_id, "all")
            continue
        patient = _patient(folder, name)
        if patient is None:
            listing.lacks["images_without_patient"] += 1
        present = ["pneumothorax" if runs else "no pneumothorax"]
        listing.add(image_id, patient or image_id, "all", name, present=present)


def read_runs(folder: DataFolder, listing: Listing | None = None) -> dict[str, tuple[str, ...]]:
    """Return the encoded masks of each image: none for one without a pneumothorax."""
    table = folder.needed("masks", ("ImageId", "EncodedPixels"))
    found: dict[str, list[str]] = {}
    for image_id, runs in zip(table["ImageId"].to_pylist(), table["EncodedPixels"].to_pylist(), strict=True):
        if image_id is None or runs is None:
            if listing is not None:
                listing.lacks["rows_without_id_or_mask"] += 1
            continue
        found.setdefault(image_id, []).append(runs)
    return {name: tuple(one for one in runs if one != EMPTY) for name, runs in found.items()}


def _patient(folder: DataFolder, name: str) -> str | None:
    """Return the PatientID of a DICOM file; ``None`` if there is none or the file cannot be read."""
    import pydicom

    place = folder.place / name
    with place.filesystem.open_input_file(place.path) as stream:
        head = bytes(stream.read(_HEAD_BYTES))
    try:
        with guarded():
            dataset = pydicom.dcmread(io.BytesIO(head), stop_before_pixels=True, specific_tags=["PatientID"])
            return text_of(dataset, "PatientID")
    except MedfilipError:
        return None
