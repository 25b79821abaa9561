"""Writers of the layouts whose images are PNG and JPEG files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from medfilip.phantom.draw import FIELD_MM
from medfilip.phantom.layouts.item import Item, LayoutTruth, Part, write_csv, write_jpeg, write_lines, write_png
from medfilip.phantom.layouts.names import CHESTXRAY14, CHEXPERT5, CHEXPERT_COLUMNS, COVIDX, PADCHEST


def chestxray14(folder: Path, items: Iterable[Item]) -> Iterator[LayoutTruth]:
    """Write ChestX-ray14: its test list has the test patients, its other list all others."""
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    )
    rows: list[tuple[object, ...]] = []
    lists: dict[str, list[str]] = {"test_list.txt": [], "train_val_list.txt": []}
    for item in items:
        study, pixels = item.study, item.eight_bit()
        name = f"{item.patient:08d}_{item.visit:03d}.png"
        write_png(folder / "images_001" / "images" / name, pixels)
        labels = "|".join(CHESTXRAY14[category] for category in item.shown) or "No Finding"
        side, spacing = len(pixels), round(FIELD_MM / len(pixels), 6)
        about = (study.age, study.sex, study.images[0].view, side, side, spacing, spacing, "")
        rows.append((name, labels, item.visit, item.patient, *about))
        lists["test_list.txt" if item.part == "test" else "train_val_list.txt"].append(name)
        part: Part = "test" if item.part == "test" else "train"
        yield LayoutTruth(image_id=name, patient=str(item.patient), part=part, shown=item.shown)
    write_csv(folder / "Data_Entry_2017.csv", [header], rows)
    for file, names in lists.items():
        write_lines(folder / file, names)


def covidx(folder: Path, items: Iterable[Item]) -> Iterator[LayoutTruth]:
    """Write COVIDx in its version A, with the classes normal, pneumonia and COVID-19."""
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for item in items:
        part: Part = "test" if item.part == "test" else "train"
        name = f"PH-{item.study.index:06d}.png"
        write_png(folder / part / name, item.eight_bit())
        label = next((COVIDX[category] for category in COVIDX if category in item.shown), "normal")
        lines[part].append(f"PH{item.patient:05d} {name} {label} phantom")
        yield LayoutTruth(image_id=f"{part}/{name}", patient=f"PH{item.patient:05d}", part=part, shown=item.shown)
    for file, listed in lines.items():
        write_lines(folder / f"{file}.txt", listed)


def chexpert5(folder: Path, items: Iterable[Item]) -> Iterator[LayoutTruth]:
    """Write CheXpert with its test set; studies with a lateral image have two views."""
    root = folder / "CheXpert-v1.0"
    facts = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
    rows: dict[str, list[tuple[object, ...]]] = {"train": [], "valid": [], "test": []}
    for item in items:
        place = "valid" if item.part == "validation" else item.part
        labels = {CHEXPERT5[category] for category in item.shown}
        values = [
            "1.0" if column in labels or (column == "No Finding" and not labels) else "0.0"
            for column in CHEXPERT_COLUMNS
        ]
        for number, image in enumerate(item.study.images):
            view = "Lateral" if number else "Frontal"
            key = f"patient{item.patient:05d}/study{item.visit + 1}/view{number + 1}_{view.lower()}.jpg"
            write_jpeg(root / place / key, item.eight_bit(number))
            sex = "Female" if item.study.sex == "F" else "Male"
            about = (f"CheXpert-v1.0/{place}/{key}", sex, item.study.age, view, "" if number else image.view)
            rows[place].append((*about, *values))
            yield LayoutTruth(
                image_id=key,
                patient=f"patient{item.patient:05d}",
                part=item.part,
                shown=item.shown,
                left_out="lateral" if number else None,
            )
    for name, listed in rows.items():
        write_csv(root / f"{name}.csv", (*facts, *CHEXPERT_COLUMNS), listed)


def padchest(folder: Path, items: Iterable[Item]) -> Iterator[LayoutTruth]:
    """Write PadChest; the studies of every fifth patient are labelled by the network, which is wrong."""
    rows: list[tuple[object, ...]] = []
    for item in items:
        by_network = item.patient % 5 == 0
        labels = [PADCHEST[category] for category in item.shown] or ["normal"]
        # The real lists have stray spaces and empty names.
        listed = str(["", *(f"{name} " for name in labels)] if item.visit else labels)
        for number, image in enumerate(item.study.images):
            name = f"{item.study.index:09d}_{number:02d}-{item.patient:03d}.png"
            write_png(folder / "0" / name, item.sixteen_bit(number))
            projection = "L" if number else "AP_horizontal" if image.view == "AP" else image.view
            method = "RNN_model" if by_network else "Physician"
            text = "['tuberculosis']" if by_network else listed
            patient = f"{item.patient:039d}"
            rows.append((len(rows), name, 0, item.study.study_uid, patient, projection, method, text))
            reason = "not_labelled_by_a_physician" if by_network else "lateral" if number else None
            yield LayoutTruth(image_id=name, patient=patient, part=None, shown=item.shown, left_out=reason)
    header = ("", "ImageID", "ImageDir", "StudyID", "PatientID", "Projection", "MethodLabel", "Labels")
    write_csv(folder / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", header, rows)
