"""Look-up tables: what the category tree and the sites say."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from medfilip.findings.codes import Codebook
from medfilip.findings.ontology import load_ontology
from medfilip.similarity.tables import VIEWS, SimilarityWeights, build_tables

BOOK = Codebook.of(load_ontology())
WEIGHTS = SimilarityWeights()
TABLES = build_tables(BOOK, WEIGHTS)


def category(a, b):
    return TABLES.category_CC[BOOK.categories.index(a), BOOK.categories.index(b)].item()


def site(a, b):
    return TABLES.site_SS[BOOK.sites.index(a), BOOK.sites.index(b)].item()


def test_categories_by_relation():
    assert category("consolidation", "consolidation") == 1
    assert category("consolidation", "lung_opacity") == pytest.approx(WEIGHTS.parent)
    assert category("lung_opacity", "consolidation") == pytest.approx(WEIGHTS.child)
    assert category("bullous_emphysema", "copd") == pytest.approx(WEIGHTS.parent * WEIGHTS.generation)
    assert category("nodule", "mass") == pytest.approx(WEIGHTS.sibling)
    assert category("nodule", "cardiomegaly") == 0


def test_is_a_is_the_ontologys_tree():
    ontology = BOOK.ontology
    for row, name in enumerate(BOOK.categories):
        found = {BOOK.categories[i] for i in TABLES.is_a_CC[row].nonzero().flatten().tolist()}
        assert found == {name, *ontology.ancestors(name)}


def test_sites_by_region_and_parent():
    assert site("lower_lobe", "lung_base") == 1
    assert site("lung", "lower_lobe") == site("lower_lobe", "lung") == 0.5
    assert site("upper_lobe", "lower_lobe") == 0
    assert torch.equal(TABLES.site_SS, TABLES.site_SS.T)


def test_views():
    column = TABLES.visible_VC[:, BOOK.categories.index("pneumothorax")].tolist()
    assert dict(zip(VIEWS, column, strict=True)) == {"frontal": True, "lateral": False, "unknown": True}


@pytest.mark.parametrize("changed", [{"category": 0.6}, {"parent": 0.5}, {"sibling": 0.4}, {"colour": 1}])
def test_weights_that_break_the_order_are_refused(changed):
    with pytest.raises(ValidationError):
        SimilarityWeights(**changed)
