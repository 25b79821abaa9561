"""Writers of the layouts whose images are DICOM files."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from medfilip.imaging.run_lengths import EMPTY, rle_encode
from medfilip.phantom.dicom import dicom_bytes
from medfilip.phantom.layouts.item import Item, LayoutTruth, Part, write_csv, write_file
from medfilip.phantom.layouts.names import RSNA, VINDR_COLUMNS, VINDR_CXR

_READERS = 3


def rsna(folder: Path, items: Iterable[Item]) -> Iterator[LayoutTruth]:
    """Write the RSNA challenge: a row for each box, and the map that says whose image is whose."""
    rows: list[tuple[object, ...]] = []
    classes: list[tuple[object, ...]] = []
    origins: list[dict[str, str]] = []
    for item in items:
        image_id = _identifier(item.study.sop_uid)
        write_file(folder / "stage_2_train_images" / f"{image_id}.dcm", dicom_bytes(item.study))
        boxes = [box for key, box in item.study.boxes.items() if key.split("/")[0] in RSNA]
        for row0, col0, row1, col1 in boxes:
            rows.append((image_id, float(col0), float(row0), float(col1 - col0), float(row1 - row0), 1))
            classes.append((image_id, "Lung Opacity"))
        if not boxes:
            rows.append((image_id, "", "", "", "", 0))
            classes.append((image_id, "No Lung Opacity / Not Normal" if item.shown else "Normal"))
        origins.append({"subset_img_id": image_id, "img_id": f"{item.patient:08d}_{item.visit:03d}.png"})
        yield LayoutTruth(image_id=image_id, patient=str(item.patient), part=None, shown=item.shown)
    write_csv(folder / "stage_2_train_labels.csv", ("patientId", "x", "y", "width", "height", "Target"), rows)
    write_csv(folder / "stage_2_detailed_class_info.csv", ("patientId", "class"), classes)
    write_file(folder / "pneumonia-challenge-dataset-mappings_2018.json", json.dumps(origins).encode())


def vindr_cxr(folder: Path, items: Iterable[Item]) -> Iterator[LayoutTruth]:
    """Write VinDr-CXR: of three readers of a training image one is wrong about one label."""
    rows: dict[str, list[tuple[object, ...]]] = {"train": [], "test": []}
    for item in items:
        part: Part = "test" if item.part == "test" else "train"
        image_id = hashlib.sha256(item.study.sop_uid.encode()).hexdigest()[:32]
        write_file(folder / part / f"{image_id}.dicom", dicom_bytes(item.study))
        labels = {VINDR_CXR[category] for category in item.shown} or {"No finding"}
        values = [int(column in labels) for column in VINDR_COLUMNS]
        if part == "test":
            rows[part].append((image_id, *values))
        for reader in range(_READERS if part == "train" else 0):
            said, wrong = list(values), item.study.index % len(values)
            if reader == item.study.index % _READERS:
                said[wrong] = 1 - said[wrong]
            rows[part].append((image_id, f"R{reader + 1}", *said))
        yield LayoutTruth(image_id=image_id, patient=image_id, part=part, shown=item.shown)
    annotations = folder / "annotations"
    write_csv(annotations / "image_labels_train.csv", ("image_id", "rad_id", *VINDR_COLUMNS), rows["train"])
    write_csv(annotations / "image_labels_test.csv", ("image_id", *VINDR_COLUMNS), rows["test"])


def siim_acr(folder: Path, items: Iterable[Item]) -> Iterator[LayoutTruth]:
    """Write the SIIM-ACR challenge: a row for each pneumothorax with its mask, -1 for an image without one."""
    rows: list[tuple[object, ...]] = []
    for item in items:
        study = item.study
        place = folder / "dicom-images-train" / study.study_uid / f"{study.study_uid}.1"
        write_file(place / f"{study.sop_uid}.dcm", dicom_bytes(study))
        masks = [mask for key, mask in study.images[0].masks.items() if key.startswith("pneumothorax")]
        rows += [(study.sop_uid, rle_encode(mask)) for mask in masks] or [(study.sop_uid, EMPTY)]
        yield LayoutTruth(image_id=study.sop_uid, patient=study.patient_id, part=None, shown=item.shown)
    write_csv(folder / "train-rle.csv", ("ImageId", " EncodedPixels"), rows)


def _identifier(text: str) -> str:
    return str(uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4))
