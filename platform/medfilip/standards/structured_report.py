"""An answer as a DICOM structured report: a Measurement Report (PS3.16, TID 1500) in the study of its images.

The object is a Comprehensive SR, which archives take more often than the 3D one and which holds all that is said here:
no region is. Each finding is a measurement group (TID 1501) with its decision, its numbers and its place. The report
is preliminary and unverified, says in words that it is for research, and carries of the source what
`medfilip.standards.source` lists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from medfilip.answers import DiagnosedFinding, Diagnosis
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.limits import ImageLimits
from medfilip.standards.codes import (
    Concept,
    decision_concept,
    finding_concepts,
    load_codes,
    own,
    place_concepts,
    severity_concept,
    shortened,
)
from medfilip.standards.source import MANUFACTURER, Source, fresh_uid, read_sources, silent, stamp
from medfilip.standards.wording import ALGORITHM, abstention_words, device_uid, remarks

if TYPE_CHECKING:
    from highdicom.sr import (
        AlgorithmIdentification,
        CodedConcept,
        FindingSite,
        Measurement,
        MeasurementReport,
        MeasurementsAndQualitativeEvaluations,
        ObservationContext,
        QualitativeEvaluation,
        TextContentItem,
    )

_SERIES_NUMBER = 9001  # far behind the series of any examination
_PROCEDURE = Concept("LN", "43468-8", "X-Ray Report")
_NO_UNITS = Concept("UCUM", "1", "no units")
_COMMENT = Concept("DCM", "121106", "Comment")
_LATERALITY = Concept("SCT", "272741003", "Laterality")
_SEVERITY = Concept("SCT", "246112005", "Severity")


def structured_report(
    diagnosis: Diagnosis,
    sources: Sequence[bytes | Dataset],
    *,
    created: datetime | None = None,
    limits: ImageLimits | None = None,
) -> Dataset:
    """Write an answer as a structured report; `medfilip.standards.source.part10` gives its bytes.

    Parameters
    ----------
    diagnosis
        The answer.
    sources
        DICOM files of the images it is about, in their order, or their attributes.
    created
        When it was made; now if not given.
    limits
        Bounds on the files; the defaults if not given.

    Returns
    -------
    Dataset
        A Comprehensive SR with new series and instance UIDs.

    Raises
    ------
    MedfilipError
        As `medfilip.standards.source.read_sources`; ``INPUT_EMPTY`` for an answer without findings, which the
        template does not know.
    """
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from highdicom.sr import ComprehensiveSR

    if not diagnosis.findings:
        raise MedfilipError(ErrorCode.INPUT_EMPTY, "The answer has no findings to report.", fix="Ask for a label.")
    read = read_sources(diagnosis, sources, limits)
    scheme = load_codes().scheme
    with silent():
        report = ComprehensiveSR(
            evidence=[source.dataset for source in read],
            content=_content(diagnosis, read),
            series_instance_uid=fresh_uid(),
            series_number=_SERIES_NUMBER,
            sop_instance_uid=fresh_uid(),
            instance_number=1,
            manufacturer=MANUFACTURER,
            is_complete=True,
            series_description=shortened(f"{ALGORITHM} ({diagnosis.intended_use})"),
            manufacturer_model_name=ALGORITHM,
            software_versions=shortened(diagnosis.model.code_version),
            device_serial_number=shortened(diagnosis.model.fingerprint),
            coding_schemes=[
                CodingSchemeIdentificationItem(scheme.designator, name=scheme.name, uid=scheme.uid),
            ],
        )
        stamp(report, created)
    return report


def coded(concept: Concept) -> CodedConcept:
    """Return a concept as highdicom takes it."""
    from highdicom.sr import CodedConcept

    return CodedConcept(concept.code, concept.scheme, shortened(concept.meaning))


def _content(diagnosis: Diagnosis, sources: Sequence[Source]) -> MeasurementReport:
    from highdicom.sr import MeasurementReport

    report = MeasurementReport(
        observation_context=_observer(diagnosis),
        procedure_reported=coded(_PROCEDURE),
        imaging_measurements=[_group(finding, diagnosis) for finding in diagnosis.findings],
        referenced_images=[_library_entry(source) for source in sources],
    )
    report[0].ContentSequence.extend(map(_text, remarks(diagnosis)))
    return report


def _observer(diagnosis: Diagnosis) -> ObservationContext:
    """Say that a device observed, which one, and in which version (TID 1002, TID 1004)."""
    from highdicom.sr import DeviceObserverIdentifyingAttributes, ObservationContext, ObserverContext
    from pydicom.sr.codedict import codes

    device = DeviceObserverIdentifyingAttributes(
        uid=device_uid(diagnosis.model.fingerprint),
        name=f"{ALGORITHM} {diagnosis.model.code_version}",
        manufacturer_name=MANUFACTURER,
        model_name=ALGORITHM,
        serial_number=diagnosis.model.fingerprint,
    )
    return ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device))


def _library_entry(source: Source) -> Dataset:
    """Return what the image library says of an image: of a radiograph without spacing and orientation, its size.

    highdicom asks for both once it sees the modality of a projection radiograph (TID 1603).
    """
    entry = Dataset()
    entry.update(source.dataset)
    entry.Modality = ""
    if source.modality and source.orientation and source.spacing_mm:
        entry.Modality = source.modality
        entry.PatientOrientation = list(source.orientation)
        entry.ImagerPixelSpacing = list(source.spacing_mm)
    return entry


def _group(finding: DiagnosedFinding, diagnosis: Diagnosis) -> MeasurementsAndQualitativeEvaluations:
    """Write a finding as a measurement group (TID 1501)."""
    from highdicom.sr import MeasurementsAndQualitativeEvaluations, TrackingIdentifier

    concepts = finding_concepts(finding)
    kind = concepts[0] if concepts else own("answer.described_finding", "Finding described in words")
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=fresh_uid(), identifier=finding.label),
        finding_type=coded(kind),
        algorithm_id=_algorithm(diagnosis),
        finding_sites=_sites(finding) or None,
        measurements=list(_measurements(finding)),
        qualitative_evaluations=list(_evaluations(finding)),
    )
    texts = [_text(f"Asked for: {finding.label}")]
    if finding.decision == "abstained":
        texts.append(_text(abstention_words(diagnosis, finding)))
    attribute = own("answer.attribute", "Visual attribute and how well it fits")
    texts += [_text(f"{one.axis}: {one.text}; {one.score:+.3f}", attribute) for one in finding.attributes]
    group[0].ContentSequence.extend(texts)
    return group


def _algorithm(diagnosis: Diagnosis) -> AlgorithmIdentification:
    from highdicom.sr import AlgorithmIdentification

    model = diagnosis.model
    return AlgorithmIdentification(
        name=ALGORITHM,
        version=model.code_version,
        manufacturer=MANUFACTURER,
        parameters=[
            f"model fingerprint {model.fingerprint}",
            f"label set {model.label_set}",
            f"training data: {model.training_data}",
        ],
    )


def _sites(finding: DiagnosedFinding) -> list[FindingSite]:
    from highdicom.sr import FindingSite

    site, side = place_concepts(finding)
    return [FindingSite(coded(site), laterality=coded(side) if side else None)] if site else []


def _measurements(finding: DiagnosedFinding) -> Iterator[Measurement]:
    """Yield the numbers of a finding (TID 300)."""
    from highdicom.sr import Measurement

    point = finding.operating_point
    numbers = [
        ("probability", "Probability that the finding is present", finding.probability),
        ("probability_low", "Lower end of 95 % interval of probability", finding.probability_low),
        ("probability_high", "Upper end of 95 % interval of probability", finding.probability_high),
        ("positive_score", "Logit of prompts that say it is there", finding.positive_score),
        ("negative_score", "Logit of prompts that say it is not", finding.negative_score),
        ("threshold", "Probability from which it is called present", point.threshold if point else None),
    ]
    for code, meaning, value in numbers:
        if value is not None:
            yield Measurement(coded(own(f"answer.{code}", meaning)), float(value), coded(_NO_UNITS))


def _evaluations(finding: DiagnosedFinding) -> Iterator[QualitativeEvaluation]:
    """Yield what is said of a finding in codes; the side where no site carries it."""
    from highdicom.sr import QualitativeEvaluation

    site, side = place_concepts(finding)
    said: list[tuple[Concept, Concept]] = [
        (own("answer.decision", "Decision"), decision_concept(finding.decision, dicom=True)),
        (
            own("answer.calibration", "Curve behind the probability"),
            own(f"calibration.{finding.calibration}", finding.calibration),
        ),
    ]
    if finding.operating_point:
        rule = finding.operating_point.rule
        said.append((own("answer.rule", "Rule that chose the threshold"), own(f"rule.{rule}", rule)))
    if (severity := severity_concept(finding)) is not None:
        said.append((_SEVERITY, severity))
    if side and not site:
        said.append((_LATERALITY, side))
    for name, value in said:
        yield QualitativeEvaluation(coded(name), coded(value))


def _text(text: str, name: Concept = _COMMENT) -> TextContentItem:
    from highdicom.sr import RelationshipTypeValues, TextContentItem

    return TextContentItem(coded(name), text, RelationshipTypeValues.CONTAINS)
