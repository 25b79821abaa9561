from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from defusedxml.ElementTree import fromstring
from fhir.resources.R4B.diagnosticreport import DiagnosticReport

from medfilip.answers import LICENSED, AnswerWarning, ModelFacts
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.standards.fhir import diagnostic_report
from tests.support.diagnoses import diagnosis, finding, heat_map

ISSUED = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
ELEMENTS = yaml.safe_load((Path(__file__).parent / "r4_elements.yaml").read_text(encoding="utf-8"))


def report(*findings: Any, subject: Any = None, **changes: Any) -> dict[str, Any]:
    return diagnostic_report(diagnosis(*findings, **changes), issued=ISSUED, subject=subject)


def observations(resource: dict[str, Any]) -> list[dict[str, Any]]:
    return [item for item in resource["contained"] if item["resourceType"] == "Observation"]


def component(observation: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [one for one in observation["component"] if one["code"]["coding"][0]["code"] == f"answer.{name}"]


def used(value: Any, kind: str) -> set[tuple[str, str]]:
    """Elements of a resource as (type, element); fails on one that the two versions do not share."""
    if not kind[0].isupper():
        assert not isinstance(value, dict | list), f"{value} is no {kind}"
        return set()
    if kind == "Resource":
        kind = value["resourceType"]
    known = {**ELEMENTS["Resource"], **ELEMENTS[kind]}
    found = set()
    for name, content in value.items():
        if name == "resourceType":
            continue
        assert name in known, f"{kind}.{name} is not defined alike in R4 and R4B"
        found.add((kind, name))
        repeats = known[name].endswith("[]")
        assert isinstance(content, list) == repeats, f"{kind}.{name}"
        for one in content if repeats else [content]:
            found |= used(one, known[name].removesuffix("[]"))
    return found


def test_only_elements_that_r4_and_r4b_define_alike() -> None:
    found = used(report(subject={"reference": "Patient/1", "display": "N"}), "DiagnosticReport")
    assert {("Observation", "component"), ("Device", "version"), ("DiagnosticReport", "subject")} <= found
    with pytest.raises(AssertionError, match="composition"):  # R5 has it; the list would notice
        used({"resourceType": "DiagnosticReport", "composition": {}}, "DiagnosticReport")


def test_it_is_valid_and_survives_json() -> None:
    sent = json.loads(json.dumps(report(subject="Patient/12"), allow_nan=False))
    read = DiagnosticReport.model_validate(sent)
    assert read.status == "preliminary" and len(read.result) == len(observations(sent))
    assert read.issued == ISSUED


def test_rules_between_elements() -> None:
    """Rules that the models do not check: dom-2 and dom-3 of DomainResource, obs-6 and obs-7 of Observation."""
    told = report()
    links = {link for link in json.dumps(told).split('"') if link.startswith("#")}
    assert links == {f"#{item['id']}" for item in told["contained"]}
    for item in told["contained"]:
        assert "contained" not in item and "text" not in item
    for item in observations(told):
        assert ("valueCodeableConcept" in item) != ("dataAbsentReason" in item)
        assert item["code"] not in [one["code"] for one in item["component"]]


def test_every_kind_of_finding_is_said() -> None:
    present, nodule, absent, abstained, own_codes, in_words = observations(report())
    systems = [coding["system"] for coding in present["code"]["coding"]]
    assert systems[0] == "http://snomed.info/sct" and systems[1].startswith("urn:oid:2.25.")
    assert [coding["code"] for coding in present["code"]["coding"]] == ["60046008", "pleural_effusion"]
    assert present["valueCodeableConcept"]["coding"][0]["code"] == "52101004"
    assert present["interpretation"][0]["coding"][0]["code"] == "POS"
    assert component(present, "probability")[0]["valueQuantity"]["value"] == 0.83
    (interval,) = component(present, "probability_interval")
    assert (interval["valueRange"]["low"]["value"], interval["valueRange"]["high"]["value"]) == (0.71, 0.9)
    assert component(present, "positive_score")[0]["valueQuantity"]["value"] == 3.25
    assert component(present, "negative_score")[0]["valueQuantity"]["value"] == -1.5
    assert component(present, "threshold")[0]["valueQuantity"]["value"] == 0.4
    assert component(present, "severity")[0]["valueCodeableConcept"]["coding"][0]["code"] == "6736007"
    assert component(present, "laterality")[0]["valueCodeableConcept"]["coding"][0]["code"] == "7771000"
    assert component(present, "laterality")[0]["valueCodeableConcept"]["text"] == "left (0.70 of 3 choices)"
    assert present["bodySite"]["coding"][0]["code"] == "site.lung_base"
    (attribute,) = component(present, "attribute")
    assert "homogeneous grey" in attribute["code"]["text"] and attribute["valueQuantity"]["value"] == 0.12
    assert component(nodule, "laterality")[0]["valueCodeableConcept"]["coding"][0]["code"] == "24028007"
    assert absent["valueCodeableConcept"]["coding"][0]["code"] == "2667000"
    assert absent["interpretation"][0]["coding"][0]["code"] == "NEG"
    assert not component(absent, "probability_interval")
    assert "not calibrated" in json.dumps(absent["note"])
    assert abstained["dataAbsentReason"]["coding"][0]["code"] == "unknown"
    assert abstained["interpretation"][0]["coding"][0]["code"] == "IND"
    assert component(abstained, "probability"), "what the model computed is told, decided or not"
    assert not component(own_codes, "threshold")
    assert "coding" not in in_words["code"] and in_words["code"]["text"].endswith("ä")


def test_maps_and_unfamiliarity_are_told() -> None:
    shown = heat_map()
    told = report(finding(heat_map=shown), finding("nodule"), unfamiliarity=0.25, subject="Patient/1")
    (media,) = (item for item in told["contained"] if item["resourceType"] == "Media")
    assert media["content"]["data"] == shown.png and (media["width"], media["height"]) == (shown.width, shown.height)
    assert media["subject"] == {"reference": "Patient/1"}
    assert told["media"] == [
        {"comment": "Evidence for pleural effusion in image 1", "link": {"reference": f"#{media['id']}"}}
    ]
    last = observations(told)[-1]
    assert last["id"] == "unfamiliarity" and last["valueQuantity"]["value"] == 0.25
    used(told, "DiagnosticReport")
    DiagnosticReport.model_validate(json.loads(json.dumps(told)))
    assert "media" not in report(finding(), unfamiliarity=None)


def test_it_says_what_made_it_and_what_limits_it() -> None:
    warning = AnswerWarning(code="rotated", message="The image <b>looks</b> rotated & dim.")
    told = report(warnings=(warning,), abstentions=("unfamiliar_image",))
    assert [tag["code"] for tag in told["meta"]["tag"]] == ["tag.research_use_only", "tag.synthetic_training_data"]
    for text in ("Research use only", "synthetic training data", "unlike those", warning.message):
        assert text in told["conclusion"]
    assert all("Research use only" in item["note"][0]["text"] for item in observations(told))
    (device,) = (item for item in told["contained"] if item["resourceType"] == "Device")
    versions = {version["type"]["text"]: version["value"] for version in device["version"]}
    assert versions == {"software": "0.1.0", "model": "0123456789abcdef", "label set": "fedcba9876543210"}
    read = "".join(fromstring(told["text"]["div"]).itertext())
    assert warning.message in read and "mild cardiomegaly: absent" in read


def test_a_model_trained_on_a_corpus_is_not_called_synthetic() -> None:
    model = ModelFacts(fingerprint="a", label_set="b", code_version="1", training_data=LICENSED)
    assert "synthetic" not in json.dumps(report(model=model, warnings=()))


def test_nobody_is_named_unless_asked() -> None:
    told = report()
    assert "subject" not in json.dumps(told)
    about = {"identifier": {"system": "urn:oid:1.2.3", "value": "0815"}, "display": "Jane"}
    named = report(subject=about)
    assert named["subject"] == about and all(item["subject"] == about for item in observations(named))


@pytest.mark.parametrize(
    "subject",
    [
        "CANARY",
        "Practitioner/CANARY",
        "Patient/CANARY CANARY",
        "http://u:p@host/fhir/Patient/CANARY",
        {},
        {"reference": "Group/CANARY"},
        {"identifier": "CANARY"},
        {"type": "Group", "display": "CANARY"},
        {"reference": "Patient/1", "extension": [{"url": "CANARY"}]},
        {"display": ["CANARY"]},
    ],
)
def test_a_subject_that_is_no_patient_is_refused_in_silence(subject: Any) -> None:
    with pytest.raises(MedfilipError) as caught:
        report(subject=subject)
    assert caught.value.code is ErrorCode.REQUEST_INVALID
    assert "CANARY" not in str(caught.value) and caught.value.__cause__ is None


def test_an_answer_without_findings_or_zone_is_refused() -> None:
    with pytest.raises(MedfilipError) as caught:
        diagnostic_report(diagnosis().model_copy(update={"findings": ()}), issued=ISSUED)
    assert caught.value.code is ErrorCode.INPUT_EMPTY
    with pytest.raises(MedfilipError) as caught:
        diagnostic_report(diagnosis(finding()), issued=ISSUED.replace(tzinfo=None))
    assert caught.value.code is ErrorCode.REQUEST_INVALID
