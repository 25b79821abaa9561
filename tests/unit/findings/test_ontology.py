"""The ontology as data: references hold, nothing is said twice, codes are positions."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ValidationError

from medfilip.findings.codes import NONE, Codebook
from medfilip.findings.finding import Certainty, Change, Chronicity, Evidence, Finding, Hedge, Laterality
from medfilip.findings.ontology import Ontology, load_ontology
from medfilip.storage.schemas import FINDING, FINDING_FIELDS

ONTOLOGY = load_ontology()


def test_no_term_names_two_categories() -> None:
    owners: dict[str, str] = {}
    for category in ONTOLOGY.categories.values():
        for term in category.terms:
            assert owners.setdefault(term, category.id) == category.id, f"{term!r} names two categories"


@pytest.mark.parametrize("slot", ["severities", "sizes", "patterns"])
def test_no_qualifier_has_two_values(slot: str) -> None:
    terms = [term for terms in getattr(ONTOLOGY, slot).values() for term in terms]
    assert len(terms) == len(set(terms))


def test_no_site_term_names_two_sites() -> None:
    terms = [term for site in ONTOLOGY.sites.values() for term in site.synonyms]
    assert len(terms) == len(set(terms))


def test_labels_read_inside_a_sentence() -> None:
    for category in ONTOLOGY.categories.values():
        assert not set("()/") & set(category.label), category.id
        assert category.label == category.label.strip()


def test_the_tree_is_walked_both_ways() -> None:
    assert ONTOLOGY.ancestors("consolidation") == {"airspace_disease", "lung_opacity"}
    assert "consolidation" in ONTOLOGY.descendants("lung_opacity")
    assert ONTOLOGY.ancestors("other:rumpus") == frozenset()
    assert ONTOLOGY.label("other:rumpus") == "rumpus"
    assert ONTOLOGY.regions(["lung_base", "lower_lobe"]) == {"lower_zone"}


def _changed(**category: object) -> dict[str, object]:
    data = ONTOLOGY.model_dump(mode="json")
    data["categories"]["edema"] |= category
    return data


def test_unknown_parents_cycles_and_sites_are_refused() -> None:
    for change in ({"parents": ["nothing"]}, {"implied_sites": ["nowhere"]}):
        with pytest.raises(ValidationError, match="unknown entries"):
            Ontology.model_validate(_changed(**change))
    cyclic = _changed()
    cyclic["categories"]["lung_opacity"]["parents"] = ["edema"]  # type: ignore[index]
    with pytest.raises(ValidationError, match="own ancestor"):
        Ontology.model_validate(cyclic)


def test_fingerprint_follows_content() -> None:
    assert Ontology.model_validate(_changed(label="oedema")).fingerprint != ONTOLOGY.fingerprint
    assert Ontology.model_validate(_changed()).fingerprint == ONTOLOGY.fingerprint


def test_codes_are_positions_and_size_stands_in_for_severity() -> None:
    book = Codebook.of(ONTOLOGY)
    row = {
        "category": "pleural_effusion",
        "certainty": "present",
        "size": "small",
        "laterality": "left",
        "sites": ["pleura"],
    }
    code = book.encode(row)
    assert code is not None
    assert book.categories[code["category"]] == "pleural_effusion"
    assert book.severities[code["severity"]] == "mild"
    assert [book.sites[site] for site in code["sites"]] == ["pleura"]
    assert book.encode({"category": "other:x", "certainty": "present"}) is None
    bare = book.encode({"category": "edema", "certainty": "absent"})
    assert bare is not None and (bare["severity"], bare["laterality"], bare["sites"]) == (NONE, NONE, [])


def test_the_readable_finding_and_the_columns_agree() -> None:
    assert list(Finding.model_fields) == [name for name, _ in FINDING_FIELDS]


# Liang et al., IEEE JBHI 2025: the categories the paper trains on, under its own names.
PAPER_CATEGORIES = [
    "ascites",
    "pulmonary embolism",
    "pleural fluid",
    "pseudoaneurysm",
    "pulmonary nodules",
    "pneumoperitoneum",
    "dislocation",
    "inflammation",
    "hyperinflation",
    "tracheostomy tube",
    "pulmonary fibrosis",
    "infectious process",
    "cardiac enlargement",
    "bronchiectasis",
    "lesion",
    "cyst",
    "abscess",
    "embolism",
    "pneumomediastinum",
    "density",
    "granuloma",
    "adenopathy",
    "pacemaker",
    "subcutaneous emphysema",
    "hemorrhage",
    "dilatation",
    "nodules",
    "infiltrate",
    "aneurysm",
    "tension",
    "interstitial markings",
    "scoliosis",
    "fibrosis",
    "copd",
    "hernia",
    "hematoma",
    "hiatal hernia",
    "lymphadenopathy",
    "vascular engorgement",
    "occlusion",
    "thrombosis",
    "engorgement",
    "aeration",
    "nodule",
    "calcification",
    "scarring",
    "infection",
    "fracture",
    "emphysema",
    "pneumothorax",
    "abnormalities",
    "vascular congestion",
    "opacification",
    "consolidation",
    "opacity",
    "cardiomegaly",
    "edema",
    "pneumonia",
    "atelectasis",
    "effusion",
    "pneumothoraces",
]
NIH14 = {
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
}  # fmt: skip


def test_every_category_of_the_paper_and_of_nih14_has_a_place() -> None:
    crosswalks = [category.crosswalk for category in ONTOLOGY.categories.values()]
    assert len(PAPER_CATEGORIES) == 61
    assert {name for item in crosswalks for name in item.medfilip61} == set(PAPER_CATEGORIES)
    assert {item.nih14 for item in crosswalks if item.nih14} == NIH14


def test_no_term_stands_in_two_slots() -> None:
    slots = {
        "category": [term for category in ONTOLOGY.categories.values() for term in category.terms],
        "site": [term for site in ONTOLOGY.sites.values() for term in site.synonyms],
        **{
            slot: [term for terms in getattr(ONTOLOGY, slot).values() for term in terms]
            for slot in ("severities", "sizes", "patterns")
        },
    }
    owners: dict[str, str] = {}
    for slot, terms in slots.items():
        for term in terms:
            assert owners.setdefault(term, slot) == slot, f"{term!r} is a {owners[term]} and a {slot}"


def test_rolling_up_leads_to_an_ancestor() -> None:
    for category in ONTOLOGY.categories.values():
        assert set(category.crosswalk.rollup_to) <= ONTOLOGY.ancestors(category.id), category.id


def test_every_category_of_the_collection_is_there(data_folder: Path) -> None:
    with (data_folder / "openi" / "scoring" / "findings_vocabulary.csv").open(encoding="utf-8", newline="") as stream:
        names = {row["category"] for row in csv.DictReader(stream)}
    assert names <= set(ONTOLOGY.categories)


def test_a_finding_survives_its_arrow_columns() -> None:
    finding = Finding(
        category="pleural_effusion",
        certainty=Certainty.UNCERTAIN,
        hedge=Hedge.POSSIBLE,
        size="small",
        size_mm=12.5,
        count=2,
        laterality=Laterality.LEFT,
        sites=("lung_base",),
        patterns=("hazy",),
        change=Change.NEW,
        chronicity=Chronicity.ACUTE,
        evidence=(Evidence(slot="mention", start=0, end=5),),
        confidence=0.5,
    )
    column = pa.array([finding.to_row()], FINDING)
    assert Finding.from_row(column.to_pylist()[0]) == finding
    bare = Finding(category="other:rumpus", suggestion="mass")
    assert Finding.from_row(pa.array([bare.to_row()], FINDING).to_pylist()[0]) == bare
