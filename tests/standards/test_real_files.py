"""Files of real systems: each gives valid objects of its study, or the code of why it cannot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.isolation import IsolatedDecoder
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.radiograph import Radiograph
from medfilip.imaging.reader import read_image
from medfilip.standards.overlay import evidence_segmentation, heat_map_capture
from medfilip.standards.source import read_source
from medfilip.standards.structured_report import structured_report
from tests.support.diagnoses import diagnosis, finding, heat_map

LIMITS = ImageLimits(accept_burned_in=True)


def test_every_real_file_gives_valid_objects_or_a_code(data_folder: Path, verified: Callable[[Dataset], bytes]) -> None:
    outcomes: Counter[str] = Counter()
    with IsolatedDecoder(LIMITS) as decoder:
        for file in sorted((data_folder / "dicom").rglob("*.dcm")):
            data = file.read_bytes()
            try:
                identity = read_source(data, LIMITS).dataset
                image = read_image(data, LIMITS, decoder)
            except MedfilipError as error:
                outcomes[error.code] += 1
                continue
            for made in objects(data, image):
                verified(made)
                assert made.StudyInstanceUID == identity.StudyInstanceUID and made.PatientID == identity.PatientID
            outcomes["valid"] += 1
    assert outcomes["valid"] >= 10, outcomes
    assert ErrorCode.INTERNAL not in outcomes


def objects(data: bytes, image: Radiograph) -> list[Dataset]:
    rows, columns = image.pixels.shape
    values = np.zeros((max(1, rows // 8), max(1, columns // 8)), np.uint8)
    values[: len(values) // 2] = 255
    mapped = finding(heat_map=heat_map(values))
    told = diagnosis(mapped, size=(rows, columns))
    return [
        structured_report(told, [data]),
        heat_map_capture(told, mapped, data, image.pixels, limits=LIMITS),
        evidence_segmentation(told, mapped, data, image.pixels, limits=LIMITS),
    ]
