"""Export profiles: they drop what a project's annotators do not code, and nothing else."""

from __future__ import annotations

import pytest

from medfilip.core.errors import MedfilipError
from medfilip.evaluation.profile import load_profile, profile_names
from medfilip.findings.ontology import load_ontology


def finding(category: str, certainty: str = "present", **slots: object) -> dict[str, object]:
    return {"category": category, "certainty": certainty, "laterality": None, "sites": [], **slots}


def test_a_rule_drops_only_what_it_names() -> None:
    placed = finding("fracture", laterality="left")
    kept = [finding("fracture", "absent"), placed, finding("rib_fracture")]
    assert load_profile("openi").apply([finding("fracture"), *kept]) == kept


def test_profiles_speak_of_known_categories() -> None:
    for name in profile_names():
        assert {rule.category for rule in load_profile(name).drop} <= set(load_ontology().categories)


def test_an_unknown_profile_names_those_there_are() -> None:
    with pytest.raises(MedfilipError, match="openi"):
        load_profile("other")
