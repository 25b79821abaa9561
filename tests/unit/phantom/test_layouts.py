"""Phantoms in the layouts of public data sets: files that readers of images take, the same bytes for the same seed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.isolation import IsolatedDecoder
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.reader import read_image
from medfilip.phantom.layouts.corpus import read_layout_truth, write_layout
from medfilip.phantom.layouts.names import CHEXPERT5, CHEXPERT_COLUMNS, LAYOUTS, VINDR_COLUMNS, VINDR_CXR
from medfilip.phantom.lesions import CATEGORIES
from medfilip.phantom.study import StudyOptions, make_study
from pipelines.phantom import PhantomSettings, run

OPTIONS = StudyOptions(size=64, prevalence=0.3, lateral=0.5)
ENDINGS = {".png", ".jpg", ".dcm", ".dicom"}


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_the_same_seed_gives_the_same_bytes_and_images_can_be_read(layout: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_layout(tmp_path / name, layout, 6, 5, options=OPTIONS)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    images = [file for file in (tmp_path / "a").rglob("*") if file.suffix in ENDINGS]
    truths = read_layout_truth(tmp_path / "a")
    assert len(images) == len(truths) == len({truth.image_id for truth in truths})
    with IsolatedDecoder(ImageLimits()) as decoder:
        for file in images:
            assert read_image(file.read_bytes(), ImageLimits(), decoder).pixels.shape == (64, 64)
    assert json.loads((tmp_path / "a" / "phantom.json").read_text())["layout"] == layout


def test_pixels_keep_their_depth(tmp_path: Path) -> None:
    study = make_study(5, 0, options=StudyOptions(size=64, categories=tuple(LAYOUTS["padchest"])))
    write_layout(tmp_path, "padchest", 1, 5, options=StudyOptions(size=64))
    with IsolatedDecoder(ImageLimits()) as decoder:
        pixels = read_image(next(tmp_path.rglob("*.png")).read_bytes(), ImageLimits(), decoder).pixels
    assert pixels.dtype == np.uint16 and np.array_equal(pixels, study.image << 4)


def test_names_are_of_categories_and_columns_that_exist() -> None:
    for names in LAYOUTS.values():
        assert set(names) <= set(CATEGORIES)
    assert set(VINDR_CXR.values()) <= set(VINDR_COLUMNS) and len(VINDR_COLUMNS) == 28
    assert set(CHEXPERT5.values()) <= set(CHEXPERT_COLUMNS) and len(CHEXPERT_COLUMNS) == 14


def test_boxes_of_rsna_lie_in_the_image(tmp_path: Path) -> None:
    write_layout(tmp_path, "rsna", 12, 5, options=OPTIONS)
    rows = [line.split(",") for line in (tmp_path / "stage_2_train_labels.csv").read_text().splitlines()[1:]]
    boxes = [[float(cell) for cell in row[1:5]] for row in rows if row[5] == "1"]
    assert boxes and all(
        x >= 0 and y >= 0 and width > 0 and height > 0 and x + width <= 64 and y + height <= 64
        for x, y, width, height in boxes
    )


@pytest.mark.parametrize(
    ("layout", "count", "categories"), [("mimic", 2, CATEGORIES), ("rsna", 0, CATEGORIES), ("rsna", 2, ("nodule",))]
)
def test_what_cannot_be_written_is_refused(
    layout: str, count: int, categories: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(MedfilipError) as caught:
        write_layout(tmp_path, layout, count, 1, options=StudyOptions(size=64, categories=categories))
    assert caught.value.code == ErrorCode.CONFIG_INVALID and caught.value.fix


def test_the_phantom_job_writes_a_layout_and_says_how_to_evaluate_it(tmp_path: Path) -> None:
    outcome = run(PhantomSettings(root=str(tmp_path), count=4, size=64, layout="siim_acr"))
    corpus = Path(outcome.location) / "corpus"
    assert len(list(corpus.rglob("*.dcm"))) == 4 and (corpus / "train-rle.csv").exists()
    assert f"evaluate protocol siim_acr data={corpus}" in outcome.next_steps[0]
    with pytest.raises(MedfilipError) as caught:
        run(PhantomSettings(root=str(tmp_path), count=4, size=64, layout="siim_acr", masks=True))
    assert caught.value.code == ErrorCode.CONFIG_INVALID
    with pytest.raises(MedfilipError, match="no layout 'mimic'"):
        run(PhantomSettings(root=str(tmp_path), count=4, size=64, layout="mimic"))
