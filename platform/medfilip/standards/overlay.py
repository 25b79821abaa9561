"""The heat map of a finding for an archive: a colour capture that any viewer shows, and a segmentation of its core.

Both go into the study of the source. The capture is a picture for people, with what it is burned into a strip below
the image; the segmentation has the pixels of the source, so that a viewer can lay it over them. Neither outlines a
lesion: a heat map says what moved the model, and the texts say so.
"""

from __future__ import annotations

import base64
import binascii
import io
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from medfilip.answers import LICENSED, DiagnosedFinding, Diagnosis, HeatMap
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.radiograph import Pixels
from medfilip.standards.codes import Concept, own, shortened
from medfilip.standards.source import MANUFACTURER, Source, fresh_uid, read_source, silent, stamp
from medfilip.standards.structured_report import coded
from medfilip.standards.wording import ALGORITHM

if TYPE_CHECKING:
    from PIL.Image import Image

LONG_SIDE = 1024
"""Of the image in a capture, in pixels: what a screen shows, whatever the detector gave."""
HALF_OF_PEAK = 128
"""Grey value of a heat map from which a place belongs to the segmented region; 255 is the peak."""
_MAX_MAP_BYTES = 8 * 2**20
_MAX_MAP_SIDE = 4096
_STRONGEST = 0.6  # opacity of the colour at the peak: the anatomy below stays visible
_CAPTURE_SERIES, _SEGMENTATION_SERIES = 9002, 9003
_STRIP_LINE, _MARGIN, _FONT_SIZE = 24, 12, 18
_MIN_WIDTH = 640  # of a capture, so that a narrow image leaves room for the text
_SPATIAL = Concept("SCT", "309825002", "Spatial and Relational Concept")
"""Category of a segment that is a place and no structure of the body (PS3.16, CID 7150)."""


def heat_map_capture(
    diagnosis: Diagnosis,
    finding: DiagnosedFinding,
    source: bytes | Dataset,
    pixels: Pixels,
    *,
    created: datetime | None = None,
    limits: ImageLimits | None = None,
) -> Dataset:
    """Draw the heat map of a finding over its radiograph, as a Secondary Capture in the study of the radiograph.

    Parameters
    ----------
    diagnosis
        The answer.
    finding
        The finding of it whose heat map is drawn.
    source
        DICOM file of the image that the heat map is of (``finding.heat_map.image``), or its attributes.
    pixels
        ``uint8`` or ``uint16`` ``[H, W]`` of that image as decoded, larger is brighter.
    created
        When it was made; now if not given.
    limits
        Bounds on the file; the defaults if not given.

    Returns
    -------
    Dataset
        RGB, 8 bits, long side `LONG_SIDE` and a strip of text below, with new series and instance UIDs.

    Raises
    ------
    MedfilipError
        ``MAP_MISSING``, ``MAP_UNFIT`` for a map that is no picture or not of these pixels, or as
        `medfilip.standards.source.read_source`.
    """
    from highdicom.sc import SCImage

    read, heat = _checked(finding, source, pixels, limits)
    with silent():
        capture = SCImage.from_ref_dataset(
            read.dataset,
            pixel_array=_draw(diagnosis, finding, pixels, heat),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=read.orientation or ("L", "F"),
            series_instance_uid=fresh_uid(),
            series_number=_CAPTURE_SERIES,
            sop_instance_uid=fresh_uid(),
            instance_number=1,
            manufacturer=MANUFACTURER,
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            **_maker(diagnosis, f"Evidence map ({diagnosis.intended_use})"),
        )
        capture.PatientOrientation = list(read.orientation or ())
        capture.Laterality = ""
        if read.lossy:
            capture.LossyImageCompression = "01"  # once lossy, lossy in all that is made of it (C.7.6.1.1.5)
        # Text is burned in, but none of it tells who the patient is, unless the radiograph did (C.7.6.1).
        capture.BurnedInAnnotation = "YES" if read.burned_in else "NO"
        capture.DerivationDescription = shortened(f"Evidence map of {ALGORITHM} over its image", 1024)
        capture.SourceImageSequence = [_reference(read)]
        stamp(capture, created)
    return capture


def evidence_segmentation(
    diagnosis: Diagnosis,
    finding: DiagnosedFinding,
    source: bytes | Dataset,
    pixels: Pixels,
    *,
    created: datetime | None = None,
    limits: ImageLimits | None = None,
) -> Dataset:
    """Mark where the heat map of a finding reaches half of its peak, as a binary DICOM segmentation of the source.

    Parameters are those of `heat_map_capture`.

    Raises
    ------
    MedfilipError
        As `heat_map_capture`; ``MAP_UNFIT`` also where nothing speaks for the finding, or where the decoded image has
        other rows and columns than the file.
    """
    from highdicom.seg import Segmentation, SegmentDescription

    read, heat = _checked(finding, source, pixels, limits)
    if (read.dataset.Rows, read.dataset.Columns) != pixels.shape:
        raise _unfit("the decoded image has other rows and columns than its file")
    region = _resized(heat, pixels.shape) >= HALF_OF_PEAK
    if not region.any():
        raise _unfit("nothing in the image speaks for the finding")
    segment = SegmentDescription(
        segment_number=1,
        segment_label=shortened(f"Evidence for {finding.label}"),
        segmented_property_category=coded(_SPATIAL),
        segmented_property_type=coded(own("answer.evidence", "Evidence for a finding")),
        algorithm_type="AUTOMATIC",
        algorithm_identification=_algorithm(diagnosis),
        tracking_uid=fresh_uid(),
        tracking_id=shortened(finding.label),
    )
    with silent():
        segmentation = Segmentation(
            source_images=[read.dataset],
            pixel_array=region,
            segmentation_type="BINARY",
            segment_descriptions=[segment],
            series_instance_uid=fresh_uid(),
            series_number=_SEGMENTATION_SERIES,
            sop_instance_uid=fresh_uid(),
            instance_number=1,
            manufacturer=MANUFACTURER,
            content_label="EVIDENCE",
            content_description=shortened("Half of peak of an evidence map; not the outline of a lesion"),
            **_maker(diagnosis, f"Evidence region ({diagnosis.intended_use})"),
        )
        segmentation.PatientOrientation = list(read.orientation or ())
        stamp(segmentation, created)
    return segmentation


def _checked(
    finding: DiagnosedFinding, source: bytes | Dataset, pixels: Pixels, limits: ImageLimits | None
) -> tuple[Source, NDArray[np.uint8]]:
    """Return identity and map ``[H, W]``, if they belong together."""
    if finding.heat_map is None:
        raise MedfilipError(ErrorCode.MAP_MISSING, "The finding has no heat map.", fix="Ask for heat maps.")
    heat = _decode(finding.heat_map)
    rows, columns = pixels.shape
    # A pixel of the map more or less, for rounding.
    if abs(heat.shape[0] * columns - heat.shape[1] * rows) > max(rows, columns):
        raise _unfit("the heat map has another aspect than the image")
    return read_source(source, limits), heat


def _decode(heat_map: HeatMap) -> NDArray[np.uint8]:
    """Read the picture of a map, as ``uint8`` ``[H, W]``."""
    from PIL import Image

    if len(heat_map.png) > _MAX_MAP_BYTES:
        raise _unfit(f"its picture takes more than {_MAX_MAP_BYTES} bytes")
    try:
        with Image.open(io.BytesIO(base64.b64decode(heat_map.png, validate=True)), formats=["PNG"]) as picture:
            size, mode = picture.size, picture.mode
            if size != (heat_map.width, heat_map.height) or max(size) > _MAX_MAP_SIDE or mode != "L":
                raise _unfit("its picture is not grey or not of the size that is stated")
            return np.asarray(picture, np.uint8)
    except (binascii.Error, OSError, SyntaxError, ValueError) as error:
        raise _unfit(f"its picture cannot be read ({type(error).__name__})") from None


def _resized(heat: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    from PIL import Image

    resized = Image.fromarray(heat).resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.uint8)


def _draw(
    diagnosis: Diagnosis, finding: DiagnosedFinding, pixels: Pixels, heat: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return grey image, coloured map and strip, as ``uint8`` ``[H, W, 3]``."""
    from PIL import Image

    stored = (pixels >> 8 if pixels.dtype == np.uint16 else pixels).astype(np.uint8)
    scale = LONG_SIDE / max(stored.shape)
    height, width = (max(1, round(side * scale)) for side in stored.shape)
    filtering = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    grey = Image.fromarray(stored).resize((width, height), filtering)
    strength = _resized(heat, (height, width))[:, :, None] / 255.0
    mixed = np.asarray(grey, np.float64)[:, :, None] * (1 - _STRONGEST * strength)
    mixed = mixed + _STRONGEST * strength * _colours(strength)
    picture = np.rint(mixed).astype(np.uint8)
    picture = np.pad(picture, ((0, 0), (0, max(0, _MIN_WIDTH - width)), (0, 0)))
    strip = _strip(_lines(diagnosis, finding), picture.shape[1])
    return np.concatenate([picture, np.asarray(strip, np.uint8)])


def _colours(strength: NDArray[Any]) -> NDArray[np.float64]:
    """Return RGB of strengths ``[..., 1]``: from yellow to red, so that the order is seen without colour vision too."""
    return np.concatenate([np.full_like(strength, 255.0), 220.0 * (1 - strength), np.zeros_like(strength)], axis=-1)


def _lines(diagnosis: Diagnosis, finding: DiagnosedFinding) -> list[str]:
    assert finding.heat_map is not None
    calibrated = "calibrated" if finding.calibrated else "not calibrated"
    training = "" if diagnosis.model.training_data == LICENSED else f", {diagnosis.model.training_data}"
    return [
        f"{diagnosis.intended_use.upper()}{training}",
        finding.label,
        f"{finding.decision}, probability {finding.probability:.2f} ({calibrated})",
        f"Evidence map ({finding.heat_map.method}), none to strongest; not the outline of a lesion",
        f"{ALGORITHM} {diagnosis.model.code_version}, model {diagnosis.model.fingerprint}",
    ]


def _strip(lines: list[str], width: int) -> Image:
    """Draw lines of text and the scale of colours on black."""
    from PIL import Image, ImageDraw, ImageFont

    strip = Image.new("RGB", (width, _STRIP_LINE * (len(lines) + 1) + 2 * _MARGIN))
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(_FONT_SIZE)
    for number, line in enumerate(lines):
        text, room = line, width - 2 * _MARGIN
        while draw.textlength(text, font) > room:
            text = text.removesuffix("…")[:-1] + "…"
        draw.text((_MARGIN, _MARGIN + number * _STRIP_LINE), text, (255, 255, 255), font)
    bar = np.linspace(0, 1, max(1, width - 2 * _MARGIN))[None, :, None].repeat(_STRIP_LINE // 2, axis=0)
    strip.paste(Image.fromarray(np.rint(_colours(bar) * bar).astype(np.uint8)), (_MARGIN, strip.height - _STRIP_LINE))
    return strip


def _maker(diagnosis: Diagnosis, description: str) -> dict[str, Any]:
    return {
        "series_description": shortened(description),
        "manufacturer_model_name": ALGORITHM,
        "software_versions": shortened(diagnosis.model.code_version),
        "device_serial_number": shortened(diagnosis.model.fingerprint),
    }


def _algorithm(diagnosis: Diagnosis) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from pydicom.sr.codedict import codes

    return AlgorithmIdentificationSequence(
        name=ALGORITHM,
        family=codes.DCM.ArtificialIntelligence,
        version=shortened(diagnosis.model.code_version),
        parameters={"model": diagnosis.model.fingerprint, "label_set": diagnosis.model.label_set},
    )


def _reference(source: Source) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = source.dataset.SOPClassUID
    item.ReferencedSOPInstanceUID = source.dataset.SOPInstanceUID
    return item


def _unfit(what: str) -> MedfilipError:
    return MedfilipError(
        ErrorCode.MAP_UNFIT, f"The heat map cannot be shown: {what}.", fix="Give the map, file and pixels of one image."
    )
