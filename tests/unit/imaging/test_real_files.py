"""What the reader makes of real files of many makers; the files are not part of the project."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.dicom import read_dicom

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif("MEDFILIP_DATA" not in os.environ, reason="MEDFILIP_DATA does not name a folder of real data"),
]
LOSSLESS_JPEG = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
ALSO_WITHOUT_NAME = {"original/CR-ModalitySequenceLUT.dcm"}  # a chest by its pixels; its body part is empty


def rows() -> list[dict[str, str]]:
    with (Path(os.environ["MEDFILIP_DATA"]) / "dicom" / "manifest.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_every_file_gives_pixels_or_the_right_code(limits, decoder) -> None:
    outcomes = {}
    for row in rows():
        data = (Path(os.environ["MEDFILIP_DATA"]) / "dicom" / row["file"]).read_bytes()
        try:
            pixels = read_dicom(data, limits, decoder).pixels
            outcomes[row["file"]] = "pixels"
            assert pixels.shape == (int(float(row["rows"])), int(float(row["cols"]))) and np.ptp(pixels) > 100
        except MedfilipError as error:
            outcomes[row["file"]] = error.code
    chests = {row["file"] for row in rows() if row["is_chest"] == "True"} | ALSO_WITHOUT_NAME
    syntaxes = {row["file"]: row["tsuid"] for row in rows()}
    for name, outcome in outcomes.items():
        if name not in chests:
            assert outcome != "pixels", name
        elif syntaxes[name] in LOSSLESS_JPEG:
            assert outcome in ("pixels", ErrorCode.DEPENDENCY_MISSING), name
        else:
            assert outcome == "pixels", name


def test_one_image_in_many_encodings_is_one_image(limits, decoder) -> None:
    folder = Path(os.environ["MEDFILIP_DATA"]) / "dicom" / "transcoded"

    def unit(name: str) -> np.ndarray:
        return read_dicom((folder / name).read_bytes(), limits, decoder).pixels / 65535

    reference = unit("RG1_exple_m1_15.dcm")
    for name in ("RG1_imple_m1_12.dcm", "RG1_expbe_m2_12.dcm", "RG1_deflated_m1_16.dcm", "RG1_rle_m1_12.dcm"):
        assert np.abs(unit(name) - reference).max() < 1e-3, name
