"""RSNA pneumonia challenge: ``stage_2_train_labels.csv``, a row a box; patients from the challenge's map to NIH images.

``patientId`` names an image: who the patient is, only the file says that maps the challenge's images to those of
ChestX-ray14.
"""

from __future__ import annotations

import json
import re

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.protocols.folder import DataFolder
from medfilip.evaluation.protocols.listing import Listing

_OPACITY = "Lung Opacity"
_NIH_NAME = re.compile(r"^0*(\d+)_\d+\.png$")


def read(folder: DataFolder, listing: Listing) -> None:
    """Fill a listing; see the module's text."""
    table = folder.needed("labels", ("patientId", "Target"))
    targets: dict[str, set[str]] = {}
    for image_id, target in zip(table["patientId"].to_pylist(), table["Target"].to_pylist(), strict=True):
        if image_id is None or target not in ("0", "1"):
            listing.lacks["rows_without_id_or_target"] += 1
        else:
            targets.setdefault(image_id, set()).add(target)
    _check_classes(folder, targets)
    patients, images = _patients(folder), folder.images()
    for image_id, said in targets.items():
        if len(said) > 1:
            raise MedfilipError(
                ErrorCode.IMAGE_DUPLICATE,
                f"The image {image_id} has the targets 0 and 1.",
                fix="Give stage_2_train_labels.csv as the challenge ships it.",
            )
        patient = patients.get(image_id)
        if patient is None:
            listing.lacks["images_without_patient"] += 1
        present = [f"Target {next(iter(said))}"]
        listing.add(image_id, patient or image_id, "all", images.get(f"{image_id}.dcm"), present=present)
    listing.patients_known = not listing.lacks["images_without_patient"]


def _check_classes(folder: DataFolder, targets: dict[str, set[str]]) -> None:
    """Refuse classes that say otherwise than the targets: then the two files are not of one release."""
    table = folder.table("classes", ("patientId", "class"))
    if table is None:
        return
    rows = zip(table["patientId"].to_pylist(), table["class"].to_pylist(), strict=True)
    opaque = {image_id for image_id, name in rows if name == _OPACITY}
    wrong = [name for name, said in targets.items() if ("1" in said) != (name in opaque)]
    if wrong:
        raise MedfilipError(
            ErrorCode.SCHEMA_MISMATCH,
            f"{len(wrong)} images have the target of another class in stage_2_detailed_class_info.csv, "
            f"such as {wrong[0]}.",
            fix="Give both files of stage 2.",
        )


def _patients(folder: DataFolder) -> dict[str, str]:
    """Return the NIH patient of each image, as ChestX-ray14 writes it; empty without the map."""
    data = folder.read("patients")
    if data is None:
        return {}
    try:
        entries = json.loads(data)
        found = {str(entry["subset_img_id"]): _NIH_NAME.match(str(entry["img_id"])) for entry in entries}
    except (ValueError, KeyError, TypeError) as error:
        raise MedfilipError(
            ErrorCode.SCHEMA_MISMATCH,
            "The file that maps images to ChestX-ray14 is not a list of entries with 'subset_img_id' and 'img_id'.",
            fix="Give pneumonia-challenge-dataset-mappings_2018.json as the RSNA ships it.",
        ) from error
    return {name: match[1] for name, match in found.items() if match}
