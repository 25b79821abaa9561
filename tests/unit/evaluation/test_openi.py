"""Export: one severity slot, categories as the collection knows them, and profiles only where asked for."""

from __future__ import annotations

from typing import Any

from medfilip.evaluation.openi import predictions
from medfilip.evaluation.profile import load_profile
from medfilip.findings.ontology import load_ontology
from medfilip.storage.schemas import RESOLVED_FINDINGS


def exported(*rows: dict[str, Any], profile: str | None = None) -> list[dict[str, Any]]:
    full = [{"report_id": "r", "certainty": "present", "sites": [], "patterns": [], **row} for row in rows]
    chosen = load_profile(profile) if profile else None
    (table,) = predictions([RESOLVED_FINDINGS.from_rows(full)], load_ontology(), chosen)
    return list(table.to_pylist())


def test_a_size_fills_an_empty_severity() -> None:
    rows = exported(
        {"category": "pleural_effusion", "size": "medium"}, {"category": "edema", "severity": "mild", "size": "large"}
    )
    assert [row["severity"] for row in rows] == ["moderate", "mild"]


def test_what_the_collection_does_not_know_rolls_up() -> None:
    rows = exported({"category": "hydropneumothorax"}, {"category": "picc"}, {"category": "mass"})
    assert [row["category"] for row in rows] == ["pleural_effusion", "pneumothorax", "central_venous_catheter", "mass"]


def test_habits_are_applied_only_on_request() -> None:
    fracture = {"category": "fracture"}
    assert len(exported(fracture)) == 1
    assert exported(fracture, profile="openi") == []
