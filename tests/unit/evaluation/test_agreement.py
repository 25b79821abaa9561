"""Agreement with annotators: annotations through the cross-walk, pairs, triplets, and reports without a finding."""

from __future__ import annotations

from typing import Any

import pytest

from medfilip.core.errors import MedfilipError
from medfilip.evaluation.agreement import AtomReader, ReportFindings, evaluate_agreement
from medfilip.evaluation.mesh import MeshReader
from medfilip.findings.ontology import load_ontology

ONTOLOGY = load_ontology()
ATOMS, MESH = AtomReader(ONTOLOGY), MeshReader(ONTOLOGY)


def finding(category: str, **slots: Any) -> dict[str, Any]:
    return {"category": category, "certainty": "present", "sites": [], **slots}


def report(annotations: list[str], *found: dict[str, Any], **more: Any) -> ReportFindings:
    rows = [row for annotation in annotations for row in MESH.read(annotation)]
    return ReportFindings("r", ATOMS.read(rows), ATOMS.read(found), annotations == ["normal"], **more)


def values(*reports: ReportFindings) -> dict[str, float]:
    return {name: item.value for name, item in evaluate_agreement(reports, ONTOLOGY, resamples=10).metrics.items()}


@pytest.mark.parametrize(
    ("annotation", "category", "slots"),
    [
        ("Pulmonary Atelectasis/base/left", "atelectasis", {"laterality": "left", "sites": ["lung_base"]}),
        ("Cardiomegaly/mild", "cardiomegaly", {"severity": "mild"}),
        ("Pleural Effusion/right/small", "pleural_effusion", {"laterality": "right", "size": "small"}),
        ("Opacity/lung/bilateral/interstitial", "interstitial_opacity", {"laterality": "bilateral"}),
        ("Calcinosis/lung/hilum/lymph nodes/left/right", "calcified_lymph_nodes", {"laterality": "bilateral"}),
        ("Thoracic Vertebrae/degenerative", "degenerative_spine", {"sites": ["thoracic_spine"]}),
    ],
)
def test_annotations_are_read_through_the_cross_walk(annotation: str, category: str, slots: dict[str, Any]) -> None:
    row = next(row for row in MESH.read(annotation) if row["category"] == category)
    for slot, value in slots.items():
        assert row[slot] == value


def test_an_annotation_outside_the_cross_walk_names_nothing() -> None:
    assert MESH.read("normal") == MESH.read("Technical Quality of Image Unsatisfactory") == []


def test_an_attribute_too_many_costs_as_much_as_one_too_few() -> None:
    both = finding("pleural_effusion", laterality="bilateral")
    assert values(report(["Pleural Effusion/left"], both))["side_f1"] == pytest.approx(2 / 3)
    assert values(report(["Pleural Effusion/bilateral"], finding("pleural_effusion", laterality="left")))[
        "side_f1"
    ] == pytest.approx(2 / 3)


def test_sizes_and_severities_fold_and_sites_compare_by_region() -> None:
    found = finding("atelectasis", severity="minimal", laterality="left", sites=["lower_lobe"])
    numbers = values(report(["Pulmonary Atelectasis/base/left/mild"], found))
    assert (numbers["severity_f1"], numbers["region_f1"], numbers["triplet_f1"]) == (1, 1, 1)


def test_triplets_match_one_to_one() -> None:
    found = finding("lung_opacity", laterality="left")
    numbers = values(report(["Opacity/lung/left", "Opacity/lung/right"], found, found))
    assert numbers["triplet_f1"] == pytest.approx(2 / 3)


def test_lenient_credits_a_parent_and_devices_roll_up() -> None:
    numbers = values(report(["Consolidation/lung"], finding("lung_opacity")))
    assert (numbers["category_micro_f1"], numbers["category_lenient_f1"]) == (0, 1)
    assert values(report(["Catheters, Indwelling"], finding("picc")))["category_micro_f1"] == 1
    two = values(report(["Hydropneumothorax/left"], finding("hydropneumothorax", laterality="left")))
    assert two["category_micro_f1"] == 1


def test_a_normal_report_is_clean_without_a_present_finding() -> None:
    doubtful = {**finding("pneumonia"), "certainty": "uncertain"}
    device, effusion = finding("pacemaker"), finding("pleural_effusion")
    numbers = values(report(["normal"], doubtful, device), report(["normal"], effusion), report(["Emphysema"]))
    assert numbers["normal_clean"] == 0.5


def test_labels_are_compared_where_they_are_given() -> None:
    labelled = report(["Pulmonary Edema"], finding("edema"), labels=frozenset({"Edema"}))
    assert values(labelled, report([], finding("edema")))["nih14_micro_f1"] == 1


def test_no_report_is_an_error() -> None:
    with pytest.raises(MedfilipError, match="keep_report_ids"):
        evaluate_agreement([], ONTOLOGY)
