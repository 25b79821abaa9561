"""An answer in the forms that radiology software reads: made by a decoder, which holds the files it is about."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, get_args

from medfilip.answers import Diagnosis
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.given import ACCEPTING
from medfilip.imaging.intake import take_in
from medfilip.imaging.isolation import IsolatedDecoder
from medfilip.imaging.limits import ImageLimits

Form = Literal["json", "fhir", "sr", "objects"]
"""``fhir``: a DiagnosticReport; ``sr``: a structured report; ``objects``: that, and of each finding with a heat map a
Secondary Capture and a segmentation."""
FORMS: tuple[Form, ...] = get_args(Form)
MEDIA_TYPES: dict[Form, str] = {
    "json": "application/json",
    "fhir": "application/fhir+json",
    "sr": "application/dicom",
    "objects": 'multipart/related; type="application/dicom"',
}


def form_of(accept: str) -> Form:
    """Choose the form by an Accept header; JSON for none, and for whoever takes anything.

    Raises
    ------
    MedfilipError
        ``NOT_ACCEPTABLE`` if there is no such form.
    """
    ranges = [_range(part) for part in accept.lower().split(",") if part.strip()]
    if not ranges:
        return "json"
    for quality, kind in sorted(ranges, key=lambda item: -item[0]):
        if quality <= 0:
            continue
        if kind in ("*/*", "application/*", "application/json"):
            return "json"
        for form, media_type in MEDIA_TYPES.items():
            if kind == media_type.partition(";")[0]:
                return form
    raise MedfilipError(
        ErrorCode.NOT_ACCEPTABLE,
        "The Accept header names no form in which there are answers.",
        fix=f"Accept one of: {', '.join(MEDIA_TYPES.values())}.",
    )


def render(
    form: Form, diagnosis: Diagnosis, files: Sequence[bytes], limits: ImageLimits, decoder: IsolatedDecoder
) -> tuple[bytes, ...]:
    """Write an answer; one object for ``fhir`` and ``sr``.

    Parameters
    ----------
    form
        Which form; not ``json``, which is the answer itself.
    diagnosis, files
        The answer, and the files it is about in their order.
    limits, decoder
        For the pixels below heat maps.

    Raises
    ------
    MedfilipError
        As the functions of `medfilip.standards`; ``IMAGE_NOT_DICOM`` for images that belong to no study.
    """
    if form == "fhir":
        from medfilip.core.fingerprint import canonical_json
        from medfilip.standards.fhir import diagnostic_report

        return (canonical_json(diagnostic_report(diagnosis, issued=datetime.now(UTC))).encode(),)
    if any(image.transfer_syntax.startswith("image/") for image in diagnosis.images):
        raise MedfilipError(
            ErrorCode.IMAGE_NOT_DICOM,
            "A DICOM object is written into the study of its images, and a PNG or JPEG file has none.",
            fix="Send DICOM files, or accept JSON or FHIR.",
        )
    from medfilip.standards.source import part10
    from medfilip.standards.structured_report import structured_report

    report = part10(structured_report(diagnosis, files, limits=limits))
    return (report,) if form == "sr" else (report, *_maps(diagnosis, files, limits, decoder))


def _maps(diagnosis: Diagnosis, files: Sequence[bytes], limits: ImageLimits, decoder: IsolatedDecoder) -> list[bytes]:
    from medfilip.standards.overlay import evidence_segmentation, heat_map_capture
    from medfilip.standards.source import part10

    mapped = [finding for finding in diagnosis.findings if finding.heat_map is not None and finding.heat_map.peak > 0]
    pixels = {
        at: take_in(files[at], limits, decoder, checks=ACCEPTING).pixels
        for at in {finding.heat_map.image for finding in mapped if finding.heat_map is not None}
    }
    written = []
    for finding in mapped:
        assert finding.heat_map is not None
        at = finding.heat_map.image
        written.append(part10(heat_map_capture(diagnosis, finding, files[at], pixels[at], limits=limits)))
        written.append(part10(evidence_segmentation(diagnosis, finding, files[at], pixels[at], limits=limits)))
    return written


def _range(part: str) -> tuple[float, str]:
    kind, *parameters = [piece.strip() for piece in part.split(";")]
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value), kind
            except ValueError:
                return 0.0, kind
    return 1.0, kind
