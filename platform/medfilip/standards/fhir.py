"""An answer as a FHIR R4 DiagnosticReport, with nothing but elements that R4 and R4B define alike.

Findings and model are contained in the report, not sent as resources of their own in a Bundle: what nobody has
reviewed must not become an entry of a patient's record that outlives the report and its warnings. Whoever accepts a
finding makes an Observation of it.

The report names no patient and no study unless it is given a subject.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from medfilip.answers import LICENSED, DiagnosedFinding, Diagnosis, HeatMap, SlotChoice
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.standards.codes import Concept, decision_concept, finding_concepts, own, place_concepts, severity_concept
from medfilip.standards.source import MANUFACTURER
from medfilip.standards.wording import ALGORITHM, abstention_words, remarks

Json = dict[str, Any]

_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem/"
_REPORT = Concept("LN", "18748-4", "Diagnostic imaging study")
_RADIOLOGY = {
    "coding": [{"system": f"{_TERMINOLOGY}v2-0074", "code": "RAD", "display": "Radiology"}],
    "text": "Imaging",
}
_IMAGING = {"coding": [{"system": f"{_TERMINOLOGY}observation-category", "code": "imaging", "display": "Imaging"}]}
_UNKNOWN = {"system": f"{_TERMINOLOGY}data-absent-reason", "code": "unknown", "display": "Unknown"}
_INTERPRETATIONS = {
    "present": ("POS", "Positive"),
    "absent": ("NEG", "Negative"),
    "abstained": ("IND", "Indeterminate"),
}
_PATIENT = re.compile(r"(?:https?://[^\s?#@]{1,500}/)?Patient/[A-Za-z0-9.\-]{1,64}")
_SUBJECT_KEYS = frozenset({"reference", "type", "identifier", "display"})


def diagnostic_report(
    diagnosis: Diagnosis, *, issued: datetime, subject: str | Mapping[str, Any] | None = None
) -> Json:
    """Write an answer as a DiagnosticReport.

    Parameters
    ----------
    diagnosis
        The answer.
    issued
        When it was made, with its time zone.
    subject
        The patient, as ``Patient/<id>`` or a Reference with ``reference``, ``identifier`` or ``display``; nobody if
        not given.

    Returns
    -------
    dict
        JSON of the resource, checked against the R4B models of ``fhir.resources``.

    Raises
    ------
    MedfilipError
        ``REQUEST_INVALID`` for a subject that is no Reference to a Patient or a time without a zone; ``INPUT_EMPTY``
        for an answer without findings.
    """
    if not diagnosis.findings:
        raise MedfilipError(ErrorCode.INPUT_EMPTY, "The answer has no findings to report.", fix="Ask for a label.")
    if issued.tzinfo is None:
        raise _invalid(
            "The time of issue has no time zone", "Give an aware datetime, for example of datetime.now(UTC)."
        )
    about = {} if subject is None else {"subject": _subject(subject)}
    observations = [
        {"resourceType": "Observation", "id": f"finding-{number}", **_observation(finding, diagnosis), **about}
        for number, finding in enumerate(diagnosis.findings, start=1)
    ]
    if diagnosis.unfamiliarity is not None:
        observations.append({**_familiarity(diagnosis.unfamiliarity), **about})
    maps = [
        {"resourceType": "Media", "id": f"heat-map-{number}", **_map_media(finding, finding.heat_map), **about}
        for number, finding in enumerate(diagnosis.findings, start=1)
        if finding.heat_map is not None
    ]
    report: Json = {
        "resourceType": "DiagnosticReport",
        "meta": {"tag": _tags(diagnosis)},
        "text": {"status": "generated", "div": _narrative(diagnosis)},
        "contained": [_device(diagnosis), *observations, *maps],
        "identifier": [{"system": own("", "").system, "value": f"request:{diagnosis.request_id}"}],
        "status": "preliminary",
        "category": [_RADIOLOGY],
        "code": _codeable(_REPORT),
        **about,
        "issued": issued.isoformat(timespec="milliseconds"),
        "result": [{"reference": f"#{item['id']}", "display": item["code"]["text"]} for item in observations],
        "conclusion": " ".join(remarks(diagnosis)),
    }
    if maps:
        report["media"] = [
            {"comment": item["content"]["title"], "link": {"reference": f"#{item['id']}"}} for item in maps
        ]
    _check(report)
    return report


def _check(report: Json) -> None:
    """Fail on a report that the R4B models refuse; what can come from outside was checked before."""
    from fhir.resources.R4B.diagnosticreport import DiagnosticReport

    DiagnosticReport.model_validate(report)


def _subject(subject: str | Mapping[str, Any]) -> Json:
    from fhir.resources.R4B.reference import Reference
    from pydantic import ValidationError

    given = {"reference": subject} if isinstance(subject, str) else dict(subject)
    named = given.get("reference", "Patient/none")
    try:
        if not given or not given.keys() <= _SUBJECT_KEYS or not _PATIENT.fullmatch(str(named)):
            raise ValueError
        if given.get("type", "Patient") != "Patient":
            raise ValueError
        Reference.model_validate(given)
    except (ValidationError, ValueError):
        # not chained: the message would quote who the patient is
        raise _invalid(
            "The subject is no Reference to a Patient", "Write Patient/ID, or an object with reference or identifier."
        ) from None
    return given


def _tags(diagnosis: Diagnosis) -> list[Json]:
    tags = [own(f"tag.{diagnosis.intended_use.replace(' ', '_')}", diagnosis.intended_use)]
    if diagnosis.model.training_data != LICENSED:
        tags.append(own("tag.synthetic_training_data", diagnosis.model.training_data))
    return [_coding(tag) for tag in tags]


def _device(diagnosis: Diagnosis) -> Json:
    """Say which model observed."""
    model = diagnosis.model
    versions = (("software", model.code_version), ("model", model.fingerprint), ("label set", model.label_set))
    return {
        "resourceType": "Device",
        "id": "model",
        "manufacturer": MANUFACTURER,
        "deviceName": [{"name": ALGORITHM, "type": "model-name"}],
        "type": {"text": "Software"},
        "version": [{"type": {"text": kind}, "value": value} for kind, value in versions],
        "note": [{"text": f"Training data: {model.training_data}. Intended use: {diagnosis.intended_use}."}],
    }


def _observation(finding: DiagnosedFinding, diagnosis: Diagnosis) -> Json:
    """Write a finding; one that is not decided has no value, but the reason of its absence."""
    code, display = _INTERPRETATIONS[finding.decision]
    site, _ = place_concepts(finding)
    observation: Json = {
        "status": "preliminary",
        "category": [_IMAGING],
        "code": _codeable(*finding_concepts(finding), text=finding.label),
    }
    if finding.decision == "abstained":
        observation["dataAbsentReason"] = {"coding": [_UNKNOWN], "text": abstention_words(diagnosis, finding)}
    else:
        observation["valueCodeableConcept"] = _codeable(decision_concept(finding.decision))
    interpretation = {"system": f"{_TERMINOLOGY}v3-ObservationInterpretation", "code": code, "display": display}
    observation["interpretation"] = [{"coding": [interpretation]}]
    observation["note"] = [{"text": text} for text in _notes(finding, diagnosis)]
    if site:
        observation["bodySite"] = _codeable(site)
    observation["device"] = {"reference": "#model"}
    observation["component"] = list(_components(finding))
    return observation


def _familiarity(unfamiliarity: float) -> Json:
    """Write how far out the study lies among those that the model knows."""
    return {
        "resourceType": "Observation",
        "id": "unfamiliarity",
        "status": "preliminary",
        "category": [_IMAGING],
        "code": _codeable(own("answer.unfamiliarity", "Share of reference images nearer to what the model knows")),
        "valueQuantity": _quantity(unfamiliarity),
        "device": {"reference": "#model"},
    }


def _map_media(finding: DiagnosedFinding, heat_map: HeatMap) -> Json:
    """Write where the evidence lies: a grey PNG of the aspect of the image, 0 for none."""
    title = f"Evidence for {finding.label} in image {heat_map.image + 1}"
    return {
        "status": "completed",
        "type": _codeable(own(f"answer.heat_map.{heat_map.method}", f"Heat map ({heat_map.method})")),
        "device": {"reference": "#model"},
        "width": heat_map.width,
        "height": heat_map.height,
        "content": {"contentType": "image/png", "data": heat_map.png, "title": title},
        "note": [{"text": f"White stands for a contribution of {heat_map.peak:.4f} (cosine), black for none."}],
    }


def _notes(finding: DiagnosedFinding, diagnosis: Diagnosis) -> Iterator[str]:
    yield remarks(diagnosis)[0]
    if not finding.calibrated:
        yield "The probability is not calibrated for this finding."
    point = finding.operating_point
    if point:
        yield f"Called present from a probability of {point.threshold:.3f} on (rule: {point.rule})."


def _components(finding: DiagnosedFinding) -> Iterator[Json]:
    """Yield numbers and slots, each under a code of ours."""
    point = finding.operating_point
    numbers = (
        ("probability", "Probability that the finding is present", finding.probability),
        ("positive_score", "Logit of the prompts that say that it is there", finding.positive_score),
        ("negative_score", "Logit of the prompts that say that it is not", finding.negative_score),
        ("threshold", "Probability from which it is called present", point.threshold if point else None),
        ("sensitivity", "Sensitivity at that threshold, on validation images", point.sensitivity if point else None),
        ("specificity", "Specificity at that threshold, on validation images", point.specificity if point else None),
    )
    for name, meaning, value in numbers:
        if value is not None:
            yield _component(name, meaning, valueQuantity=_quantity(value))
    if finding.probability_low is not None and finding.probability_high is not None:
        low, high = _quantity(finding.probability_low), _quantity(finding.probability_high)
        meaning = "95 % interval of the probability"
        yield _component("probability_interval", meaning, valueRange={"low": low, "high": high})
    basis = own(f"calibration.{finding.calibration}", finding.calibration)
    yield _component("calibration", "Curve behind the probability", valueCodeableConcept=_codeable(basis))
    site, side = place_concepts(finding)
    slots = (
        ("severity", finding.severity, severity_concept(finding)),
        ("laterality", finding.laterality, side),
        ("site", finding.site, site),
    )
    for name, choice, concept in slots:
        if concept:
            yield _component(name, name.capitalize(), valueCodeableConcept=_codeable(concept, text=_share(choice)))
    for match in finding.attributes:
        component = _component("attribute", "Fit with a visual attribute", valueQuantity=_quantity(match.score))
        component["code"]["text"] = f"Fit with a visual attribute, {match.axis}: {match.text}"
        yield component


def _share(choice: SlotChoice | None) -> str | None:
    return f"{choice.value} ({choice.share:.2f} of {choice.choices} choices)" if choice else None


def _component(name: str, meaning: str, **value: Json) -> Json:
    return {"code": _codeable(own(f"answer.{name}", meaning)), **value}


def _quantity(value: float) -> Json:
    return {"value": float(value), "unit": "1", "system": Concept("UCUM", "1", "").system, "code": "1"}


def _codeable(*concepts: Concept, text: str | None = None) -> Json:
    codeable: Json = {"coding": [_coding(concept) for concept in concepts]} if concepts else {}
    if text or concepts:
        codeable["text"] = text or concepts[0].meaning
    return codeable


def _coding(concept: Concept) -> Json:
    return {"system": concept.system, "code": concept.code, "display": concept.meaning}


def _narrative(diagnosis: Diagnosis) -> str:
    """Return what a person reads who has no program for the rest, as XHTML."""
    rows = "".join(
        f"<li>{html.escape(finding.label)}: {finding.decision}, probability {finding.probability:.2f}"
        f"{'' if finding.calibrated else ' (not calibrated)'}</li>"
        for finding in diagnosis.findings
    )
    sentences = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in remarks(diagnosis))
    return f'<div xmlns="http://www.w3.org/1999/xhtml">{sentences}<ul>{rows}</ul></div>'


def _invalid(message: str, fix: str) -> MedfilipError:
    return MedfilipError(ErrorCode.REQUEST_INVALID, f"{message}.", fix=fix)
