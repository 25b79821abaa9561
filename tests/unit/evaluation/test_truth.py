"""What is true of a study: stated or drawn, in the views that can show it."""

from __future__ import annotations

import pytest

from medfilip.evaluation.fine_grained import Detail
from medfilip.evaluation.truth import COLUMNS, Shown, Truth
from medfilip.findings.codes import Codebook
from medfilip.findings.ontology import load_ontology

ONTOLOGY = load_ontology()


def row(category, certainty="present", study="s", **slots):
    return dict.fromkeys(COLUMNS) | {"study_id": study, "category": category, "certainty": certainty, **slots}


def test_stated_truth_rolls_up_the_tree_and_knows_what_it_does_not_know():
    truth = Truth.of([row("mass", "absent"), row("bacterial_pneumonia"), row("edema", "uncertain")], ONTOLOGY)
    assert [truth.state("s", name) for name in ("mass", "pneumonia", "edema", "pneumothorax")] == [0, 1, -1, -1]
    assert truth.categories == ("bacterial_pneumonia", "edema", "mass")


@pytest.mark.parametrize(("view", "state"), [("frontal", 1), ("lateral", -1), ("unknown", 1), (None, 1)])
def test_a_view_that_cannot_show_it_says_nothing(view, state):
    assert Truth.of([row("cardiomegaly")], ONTOLOGY).state("s", "cardiomegaly", view) == state
    assert Truth.of([row("pleural_effusion")], ONTOLOGY).state("s", "pleural_effusion", view) == 1


def test_drawn_truth_decides_over_what_is_stated():
    drawn = {"s": {"mass": Shown(True, Detail("left", None, ("upper_lobe",))), "edema": Shown(False)}}
    truth = Truth.of([row("edema")], ONTOLOGY, drawn)
    assert truth.states(["s", "t"], ["frontal"] * 2, ["mass", "edema"]).tolist() == [[1, 0], [-1, -1]]
    assert truth.details("s") == {"mass": Detail("left", None, ("upper_lobe",))}
    assert truth.categories == ("edema", "mass")


def test_findings_of_one_category_are_joined():
    truth = Truth.of(
        [
            row("pleural_effusion", laterality="left", severity="mild"),
            row("pleural_effusion", laterality="right", size="large"),
            row("mass", laterality="left", sites=["upper_lobe"]),
            row("mass", laterality="left", sites=["lower_lobe"], severity=None),
            row("edema", "absent", severity="mild"),
        ],
        ONTOLOGY,
    )
    found = truth.details("s")
    assert found["pleural_effusion"] == Detail("bilateral", None, ())  # mild on one side, severe on the other
    assert found["mass"] == Detail("left", None, ("lower_lobe", "upper_lobe"))
    assert found["mass"].value("site") is None and "edema" not in found


def test_codes_leave_out_what_the_ontology_does_not_know():
    truth = Truth.of([row("mass"), row("other:gossypiboma")], ONTOLOGY)
    assert len(truth.codes("s", Codebook.of(ONTOLOGY))) == 1
