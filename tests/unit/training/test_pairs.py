"""Pairs as columns: faithful to their rows, each finding once, and what silence about a category says."""

from __future__ import annotations

import pytest

from medfilip import ErrorCode, MedfilipError
from medfilip.core.settings import load_settings
from medfilip.storage.schemas import PAIRS
from medfilip.training.data import unseen_categories
from medfilip.training.pairs import build_columns, silence
from medfilip.training.settings import TrainSettings
from medfilip.training.told import count_slots
from tests.unit.training.synthetic import CODEBOOK, ONTOLOGY, pair_rows, settings, studies


def columns_of(reports, **options):
    rows, _ = pair_rows(reports)
    return build_columns([PAIRS.from_rows(rows[:3]), PAIRS.from_rows(rows[3:])], **{"by_study": True, **options}), rows


def test_units_have_the_findings_and_places_of_their_rows():
    columns, rows = columns_of(studies(9)[1])
    assert len(columns) == 9
    for unit, row in enumerate(rows):
        assert [int(columns.row_I[at]) for at in columns.images_of(unit)] == [row["image_row"]]
        found = [{**item.code, "text_ids": list(item.text_ids)} for item in columns.statements_of(unit)]
        assert found == row["findings"]
    assert len(columns.statements) < len(columns.statement_F), "equal findings are held once"


def test_findings_of_categories_left_out_are_dropped_and_images_stay():
    nodule = CODEBOOK.categories.index("nodule")
    columns, rows = columns_of(studies(9)[1], left_out=frozenset({nodule}))
    assert len(columns) == 9
    assert not any(item.code["category"] == nodule for item in columns.statements)
    kept = sum(item["category"] != nodule for row in rows for item in row["findings"])
    assert len(columns.statement_F) == kept < sum(len(row["findings"]) for row in rows)


def test_the_fingerprint_names_the_images():
    first, _ = columns_of(studies(5)[1])
    assert first.fingerprint == columns_of(studies(5, seed=3)[1])[0].fingerprint, "the same images in the same order"
    assert first.fingerprint != columns_of(studies(4)[1])[0].fingerprint


def test_unseen_categories_take_those_below_them_along():
    assert unseen_categories(settings(unseen=("granuloma",)), ONTOLOGY) == {"granuloma", "calcified_granuloma"}
    assert unseen_categories(settings(), ONTOLOGY) == frozenset()
    with pytest.raises(MedfilipError, match="'nodul'") as caught:
        unseen_categories(settings(unseen=("nodul",)), ONTOLOGY)
    assert caught.value.code == ErrorCode.CONFIG_INVALID and "'nodule'" in str(caught.value)


def test_another_mode_leaves_the_weight_of_silence_as_it_is():
    chosen = load_settings(TrainSettings, "train", overrides=["similarity.mode=category"], environment={})
    assert chosen.similarity.silent == TrainSettings().similarity.silent > 0


def test_silence_says_less_about_what_is_often_denied():
    present, absent = {"category": "nodule", "certainty": "present"}, {"category": "nodule", "certainty": "absent"}
    device = {"category": "pacemaker", "certainty": "present"}
    columns, _ = columns_of([[present], [absent], [absent, device], [absent, device], [absent], []])
    weight = dict(zip(CODEBOOK.categories, silence(columns, CODEBOOK).tolist(), strict=True))
    assert weight["nodule"] == pytest.approx(2 / 6) and weight["pacemaker"] == 1
    assert weight["lung_opacity"] == 1, "what is denied below a category is not denied of it"
    assert weight["edema"] == 1, "nobody speaks about it"


def test_slots_are_counted_of_what_is_there_or_may_be():
    def finding(certainty="present", **slots):
        return {"category": "nodule", "certainty": certainty, **slots}

    columns, _ = columns_of(
        [
            [finding(laterality="left", severity="mild", sites=["upper_lobe"])],
            [finding(laterality="left", sites=["upper_lobe", "lower_lobe"])],
            [finding("uncertain", laterality="bilateral", size="large")],
            [finding("absent", laterality="right", sites=["lower_lobe"])],
            [{"category": "edema", "certainty": "present"}],
        ]
    )
    assert count_slots(columns, CODEBOOK) == {
        "nodule": {
            "laterality": {"left": 2, "bilateral": 1},
            "severity": {"mild": 1, "severe": 1},
            "site": {"upper_lobe": 1},
        }
    }
