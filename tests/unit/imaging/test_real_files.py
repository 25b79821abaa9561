"""What the reader makes of real files of many makers; the files are not part of the project."""

import csv
import os
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.pixels import pixel_array

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.dicom import read_dicom
from medfilip.imaging.dicom_pixels import decode_dicom

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif("MEDFILIP_DATA" not in os.environ, reason="MEDFILIP_DATA does not name a folder of real data"),
]
LOSSLESS_JPEG = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")


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
    chests = {row["file"] for row in rows() if row["is_chest"] == "True"}
    syntaxes = {row["file"]: row["tsuid"] for row in rows()}
    for name, outcome in outcomes.items():
        if name not in chests:
            assert outcome != "pixels", name
        elif syntaxes[name] in LOSSLESS_JPEG:
            assert outcome in ("pixels", ErrorCode.DEPENDENCY_MISSING), name
        else:
            assert outcome == "pixels", name


def decodes(row: dict[str, str]) -> bool:
    return row["decode_check"].startswith("decoded")


def test_the_decoder_gives_what_pydicom_gives(limits, decoder) -> None:
    lossy = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.91")
    exact = 0
    for row in rows():
        file = Path(os.environ["MEDFILIP_DATA"]) / "dicom" / row["file"]
        if not decodes(row):
            continue
        values = decode_dicom(file.read_bytes(), limits, decoder)
        reference = pydicom_values(file, values)
        assert values.shape == reference.shape and values.dtype == reference.dtype, row["file"]
        if row["tsuid"] not in lossy:
            assert np.array_equal(values, reference), row["file"]
            exact += 1
        else:
            assert np.abs(values.astype(int) - reference).max() <= 1, row["file"]
    assert exact >= 30 and sum(map(decodes, rows())) == 42


def pydicom_values(file: Path, values: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(file, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        try:
            return pixel_array(dataset, raw=True)
        except RuntimeError:  # JPEG Extended with 12 bits needs a library under the GPL there
            assert file.name == "JPGExtended.dcm" and (values.min(), values.max()) == (0, 264)
            return values


def test_what_does_not_decode_has_a_code(limits, decoder) -> None:
    decoders, readers = Counter(), Counter()
    for row in rows():
        if decodes(row):
            continue
        data = (Path(os.environ["MEDFILIP_DATA"]) / "dicom" / row["file"]).read_bytes()
        for read, outcomes in ((decode_dicom, decoders), (read_dicom, readers)):
            try:
                read(data, limits, decoder)
                outcomes["pixels"] += 1
            except MedfilipError as error:
                outcomes[error.code] += 1
    # Three JPEG Extended streams have a wrong scan header: the library that the manifest was made with refuses them,
    # GDCM and libjpeg-turbo decode them alike. None is a chest.
    assert decoders == {
        "pixels": 3,
        ErrorCode.IMAGE_NO_PIXELS: 3,
        ErrorCode.IMAGE_NOT_DICOM: 1,
        ErrorCode.IMAGE_UNDECODABLE: 1,
    }
    assert sum(readers.values()) == 8 and "pixels" not in readers


def test_one_image_in_many_encodings_is_one_image(limits, decoder) -> None:
    folder = Path(os.environ["MEDFILIP_DATA"]) / "dicom" / "transcoded"

    def unit(name: str) -> np.ndarray:
        return read_dicom((folder / name).read_bytes(), limits, decoder).pixels / 65535

    reference = unit("RG1_exple_m1_15.dcm")
    for name in ("RG1_imple_m1_12.dcm", "RG1_expbe_m2_12.dcm", "RG1_deflated_m1_16.dcm", "RG1_rle_m1_12.dcm"):
        assert np.abs(unit(name) - reference).max() < 1e-3, name
