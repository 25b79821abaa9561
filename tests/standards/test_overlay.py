from __future__ import annotations

import base64
import io
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from medfilip.answers import DiagnosedFinding, Diagnosis
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.reader import read_image
from medfilip.phantom.corpus import dicom_bytes
from medfilip.phantom.study import StudyOptions, make_study
from medfilip.standards.overlay import LONG_SIDE, evidence_segmentation, heat_map_capture
from medfilip.standards.source import part10
from medfilip.standards.structured_report import structured_report
from tests.support.diagnoses import diagnosis, finding, heat_map
from tests.support.dicoms import make_dicom

MAKERS = [heat_map_capture, evidence_segmentation]
Maker = Callable[..., Dataset]


@dataclass
class Case:
    source: bytes
    pixels: np.ndarray
    finding: DiagnosedFinding
    diagnosis: Diagnosis

    def make(self, maker: Maker) -> Dataset:
        return maker(self.diagnosis, self.finding, self.source, self.pixels)


def case(source: bytes, **changes: object) -> Case:
    pixels = read_image(source, ImageLimits()).pixels
    told = finding(**({"heat_map": heat_map()} | changes))
    return Case(source, pixels, told, diagnosis(told, size=pixels.shape))


def small(shape: tuple[int, int] = (64, 64), **attributes: object) -> bytes:
    pixels = np.arange(shape[0] * shape[1], dtype=np.uint16).reshape(shape) % 4096
    return make_dicom(pixels, **({"SeriesInstanceUID": "2.25.9"} | attributes))


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("index", range(4))
def test_phantoms_give_valid_objects(index: int, maker: Maker, verified: Callable[[Dataset], bytes]) -> None:
    study = make_study(11, index, options=StudyOptions(size=128, lateral=1.0))
    for number in range(len(study.images)):
        verified(case(dicom_bytes(study, number)).make(maker))


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("changes", [{}, {"category": None, "label": "a\\b" + "ä" * 300, "decision": "abstained"}])
def test_poor_headers_give_valid_objects(
    maker: Maker, changes: dict[str, object], verified: Callable[[Dataset], bytes]
) -> None:
    """A header with neither orientation nor spacing, nor anything about the patient but an id."""
    source = small(PatientName=None, PatientSex=None, LossyImageCompression="01")
    made = case(source, **changes).make(maker)
    verified(made)
    assert made.StudyInstanceUID == "2.25.8" and made.PatientID == "CANARY-ID"
    assert b"CANARY^NAME" not in part10(made)


@pytest.mark.parametrize("maker", MAKERS)
def test_it_belongs_to_the_study_and_refers_to_the_image(maker: Maker, phantom_dicom: bytes) -> None:
    source = pydicom.dcmread(io.BytesIO(phantom_dicom))
    made, other = (case(phantom_dicom).make(maker) for _ in range(2))
    for name in ("StudyInstanceUID", "PatientID", "PatientName", "AccessionNumber"):
        assert made[name].value == source[name].value
    for name in ("SeriesInstanceUID", "SOPInstanceUID"):
        assert len({made[name].value, other[name].value, source[name].value}) == 3
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert "research use only" in made.SeriesDescription
    assert "StudyDescription" not in made and "PatientAge" not in made


@pytest.mark.parametrize("index", [0, 1, 6])
def test_objects_agree_with_their_source(index: int, needs_program: Callable[[str], str], tmp_path: Path) -> None:
    """dcentvfy compares what the files of a study say about patient, study and series."""
    program = needs_program("dcentvfy")
    told = case(dicom_bytes(make_study(11, index, options=StudyOptions(size=128))))
    made = [structured_report(told.diagnosis, [told.source]), *(told.make(maker) for maker in MAKERS)]
    files = []
    for number, data in enumerate([told.source, *map(part10, made)]):
        files.append(tmp_path / f"{number}.dcm")
        files[-1].write_bytes(data)
    said = subprocess.run([program, *map(str, files)], capture_output=True, text=True)
    assert said.returncode == 0 and "Error" not in said.stdout + said.stderr
    files[0].write_bytes(part10(changed(told.source)))
    said = subprocess.run([program, *map(str, files)], capture_output=True, text=True)
    assert "Error" in said.stdout + said.stderr, "it would have noticed"


def changed(source: bytes) -> Dataset:
    other = pydicom.dcmread(io.BytesIO(source))
    other.PatientName = "Somebody^Else"
    return other


def test_the_capture_shows_image_map_and_words() -> None:
    shown = case(small((48, 64)))
    capture = heat_map_capture(shown.diagnosis, shown.finding.model_copy(update={"heat_map": wide()}), *rest(shown))
    rgb = capture.pixel_array.astype(int)
    height = LONG_SIDE * 48 // 64
    assert rgb.shape[1] == LONG_SIDE and rgb.shape[0] > height
    left, right = rgb[:height, : LONG_SIDE // 2 - 40], rgb[:height, LONG_SIDE // 2 + 40 :]
    assert np.ptp(right, axis=2).max() == 0, "grey where there is no evidence"
    assert (left[..., 0] - left[..., 2]).min() > 100, "red where there is"
    assert rgb[height:].max() == 255, "the words"
    assert capture.BurnedInAnnotation == "NO" and capture.ImageType[0] == "DERIVED"


def wide() -> object:
    values = np.zeros((48, 64), np.uint8)
    values[:, :32] = 255
    return heat_map(values)


def rest(of: Case) -> tuple[bytes, np.ndarray]:
    return of.source, of.pixels


def test_the_words_change_with_what_is_said() -> None:
    told = case(small())
    one = heat_map_capture(told.diagnosis, told.finding, *rest(told)).pixel_array
    other = told.finding.model_copy(update={"label": "nodule"})
    two = heat_map_capture(told.diagnosis, other, *rest(told)).pixel_array
    assert np.array_equal(one[:LONG_SIDE], two[:LONG_SIDE]) and not np.array_equal(one, two)


def test_a_narrow_image_leaves_room_for_words() -> None:
    values = np.full((96, 8), 255, np.uint8)
    told = case(small((96, 8)), heat_map=heat_map(values))
    assert told.make(heat_map_capture).Columns == 640


def test_an_image_that_names_the_patient_still_does() -> None:
    source = small(BurnedInAnnotation="YES")
    told = finding(heat_map=heat_map())
    pixels = np.zeros((64, 64), np.uint8)
    assert heat_map_capture(diagnosis(told), told, source, pixels).BurnedInAnnotation == "YES"


def test_the_segment_is_half_of_the_peak() -> None:
    values = np.zeros((64, 64), np.uint8)
    values[10:20, 30:40], values[40:50, 5:15], values[12, 33] = 128, 127, 255
    made = case(small(), heat_map=heat_map(values)).make(evidence_segmentation)
    expected = np.zeros((64, 64), bool)
    expected[10:20, 30:40] = True
    assert np.array_equal(made.pixel_array.astype(bool), expected)
    (segment,) = made.SegmentSequence
    assert segment.SegmentAlgorithmType == "AUTOMATIC" and segment.TrackingID == "pleural effusion"


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"heat_map": None}, ErrorCode.MAP_MISSING),
        ({"heat_map": heat_map(np.zeros((32, 64), np.uint8))}, ErrorCode.MAP_UNFIT),
        ({"heat_map": heat_map(width=31)}, ErrorCode.MAP_UNFIT),
        ({"heat_map": heat_map(png="CANARY!")}, ErrorCode.MAP_UNFIT),
        ({"heat_map": heat_map(png=base64.b64encode(b"\x89PNG\r\n\x1a\nCANARY").decode())}, ErrorCode.MAP_UNFIT),
        ({"heat_map": heat_map(png="A" * (9 * 2**20))}, ErrorCode.MAP_UNFIT),
        ({"heat_map": heat_map(np.zeros((32, 32, 3), np.uint8), width=32, height=32)}, ErrorCode.MAP_UNFIT),
    ],
)
def test_a_map_that_does_not_fit_is_refused(maker: Maker, changes: dict[str, object], code: ErrorCode) -> None:
    with pytest.raises(MedfilipError) as caught:
        case(small(), **changes).make(maker)
    assert caught.value.code is code and "CANARY" not in str(caught.value)


def test_no_segment_without_evidence_or_with_other_pixels() -> None:
    with pytest.raises(MedfilipError) as caught:
        case(small(), heat_map=heat_map(np.zeros((32, 32), np.uint8))).make(evidence_segmentation)
    assert caught.value.code is ErrorCode.MAP_UNFIT
    told = case(small())
    told.pixels = told.pixels[::2, ::2]
    assert told.make(heat_map_capture), "a picture of a smaller version is still a picture"
    with pytest.raises(MedfilipError) as caught:
        told.make(evidence_segmentation)
    assert caught.value.code is ErrorCode.MAP_UNFIT
