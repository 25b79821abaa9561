"""The ontology as data: references hold, nothing is said twice, codes are positions."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from medfilip.findings.codes import NONE, Codebook
from medfilip.findings.finding import Finding
from medfilip.findings.ontology import Ontology, load_ontology
from medfilip.storage.schemas import FINDING_FIELDS

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
