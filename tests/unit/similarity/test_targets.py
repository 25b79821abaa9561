"""Targets of a global batch: the order in every mode, masks, blocks, and equality with the direct forms."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import get_args

import pytest
import torch

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.findings.codes import CERTAINTIES, Codebook
from medfilip.findings.ontology import load_ontology
from medfilip.model.objectives import soft_sigmoid
from medfilip.similarity import targets as module
from medfilip.similarity.codes import FindingTensors
from medfilip.similarity.factorised import similarity
from medfilip.similarity.tables import VIEWS, SimilarityMode, SimilarityWeights, build_tables
from medfilip.similarity.targets import Targets, distinct

BOOK = Codebook.of(load_ontology())
TABLES = build_tables(BOOK, SimilarityWeights())
MODES = get_args(SimilarityMode)
PRESENT, ABSENT, UNCERTAIN = range(3)


def finding(category, certainty="present", **slots):
    return {"category": category, "certainty": certainty, **slots}


def targets_of(reports, told, *, mode="factorised", views=None, embedding=None, **weights):
    """Targets of reports, each a list of findings; ``told`` counts the findings of all reports."""
    rows = [BOOK.encode(item) for report in reports for item in report]
    owner = torch.tensor([i for i, report in enumerate(reports) for _ in report], dtype=torch.int64)
    view = None if views is None else torch.tensor([VIEWS.index(name) for name in views])
    return Targets.of(
        FindingTensors.from_rows(rows, BOOK), owner, len(reports), torch.tensor(told, dtype=torch.int64),
        tables=TABLES, weights=SimilarityWeights(mode=mode, **weights), view_N=view,
        embedding_FD=torch.eye(max(len(rows), 1))[: len(rows)] if embedding is None else embedding,
    )  # fmt: skip


def against_texts(image, texts, **options):
    """Targets and mask of one finding's image against its own text and those of other images."""
    target, mask = targets_of([[image], *([text] for text in texts)], range(len(texts) + 1), **options).block()
    return target[0].tolist(), mask[0].tolist()


def random_batch(seed, *, images=30, findings=160, texts=70, categories=14, embedding_noise=0.0):
    """Findings of every kind, two images without any, and repeated statements; related categories among them."""
    generator = torch.Generator().manual_seed(seed)

    def between(low, high, size=findings):
        return torch.randint(low, high, (size,), generator=generator)

    sites = torch.rand(findings, len(BOOK.sites), generator=generator) < 0.02
    drawn = FindingTensors(between(0, categories), between(0, 3), between(-1, 5), between(-1, 3), sites)
    drawn = drawn[between(0, findings)]  # repeats some of them
    text = torch.unique(drawn.packed(), dim=0, return_inverse=True)[1]
    embedding = torch.randn(findings, 8, generator=generator)[text] + 0.5
    embedding += embedding_noise * torch.randn(findings, 8, generator=generator)
    return {
        "findings": drawn,
        "owner_F": between(1, images - 1),
        "images": images,
        "told_T": between(0, findings, texts),
        "view_N": between(0, len(VIEWS), images),
        "embedding_FD": torch.nn.functional.normalize(embedding, dim=1),
    }


def of(batch, mode, **weights):
    return Targets.of(**batch, tables=TABLES, weights=SimilarityWeights(mode=mode, **weights))


def dense(batch, **weights):
    texts = batch["findings"][batch["told_T"]]
    return similarity(
        batch["findings"], batch["owner_F"], batch["images"], texts,
        tables=TABLES, weights=SimilarityWeights(**weights), view_N=batch["view_N"],
    )  # fmt: skip


LEFT = finding("consolidation", severity="severe", laterality="left", sites=["lower_lobe"])
OTHERS = [
    {**LEFT, "severity": "moderate"},  # same side
    {**LEFT, "laterality": "right"},
    finding("lung_opacity", laterality="left", severity="severe", sites=["lower_lobe"]),  # parent
    finding("atelectasis", laterality="left", severity="severe", sites=["lower_lobe"]),  # sibling
    finding("cardiomegaly", severity="severe"),  # unrelated
]
ALIKE = torch.nn.functional.normalize(
    torch.tensor([[1, 0, 0], [0.9, 0.1, 0], [0.8, 0.6, 0], [1, 0, 0.1], [1, 0, 0.2], [0.9, 0, 0.4]]), dim=1
)
"""Embeddings of `LEFT` and `OTHERS`: alike throughout, as those of long descriptions are."""


def test_the_factorised_order_is_own_side_other_side_parent_sibling_unrelated():
    target, mask = against_texts(LEFT, OTHERS)
    assert target[0] == 1 and target[-1] == 0
    assert all(before > after for before, after in itertools.pairwise(target))
    assert mask == [1, 1, 1, 1, 1, 0]


def test_categories_know_equal_and_other_only():
    assert against_texts(LEFT, OTHERS, mode="category") == ([1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 0])


def test_text_cosine_is_the_cosine_within_a_category():
    target, mask = against_texts(LEFT, OTHERS, mode="text_cosine", embedding=ALIKE)
    cosine = (ALIKE @ ALIKE[0]).tolist()
    assert target[0] == 1
    assert target[1:3] == pytest.approx(cosine[1:3]) and cosine[1] > cosine[2] > 0.5
    assert target[3:] == [0, 0, 0]  # however alike their texts are
    assert mask == [1, 1, 1, 1, 1, 0]


def test_a_cosine_below_zero_counts_as_zero():
    texts, embedding = (
        [{**LEFT, "laterality": "right"}, {**LEFT, "laterality": "bilateral"}],
        [[1, 0], [-0.6, 0.8], [-1, 0]],
    )
    found = against_texts(LEFT, texts, mode="text_cosine", embedding=torch.tensor(embedding))
    assert found == ([1, 0, 0], [1, 1, 1])


def test_one_hot_knows_the_images_own_texts_only():
    assert against_texts(LEFT, [LEFT, *OTHERS[1:]], mode="one_hot") == ([1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0])
    negated = finding("nodule", "absent")
    assert against_texts(negated, [negated], mode="one_hot") == ([1, 0], [1, 1])
    assert against_texts(negated, [negated], mode="category") == ([1, 1], [1, 1])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("seed", range(3))
def test_a_text_of_the_images_own_finding_has_target_one(mode, seed):
    batch = random_batch(seed)
    targets = of(batch, mode, silent=0.5)
    own = targets.own()
    assert torch.equal(own.sum(dim=0), torch.ones(70, dtype=torch.int64))
    assert torch.equal(own.int().argmax(dim=0), batch["owner_F"][batch["told_T"]])
    assert set(batch["findings"].certainty_T[batch["told_T"]].tolist()) == {PRESENT, ABSENT, UNCERTAIN}
    assert (targets.block()[0][own] == 1).all()
    assert (of({**batch, "view_N": None}, mode).block()[1][own] == 1).all()


@pytest.mark.parametrize("mode", MODES)
def test_present_against_absent_is_zero_and_counts(mode):
    for image, text in (("present", "absent"), ("absent", "present"), ("absent", "uncertain")):
        same_text = torch.ones(2, 1)  # of which the cosine alone would be 1
        target, mask = against_texts(
            {**LEFT, "certainty": image}, [{**LEFT, "certainty": text}], mode=mode, embedding=same_text
        )
        assert (target, mask) == ([1, 0], [1, 1])


@pytest.mark.parametrize("mode", MODES)
def test_an_uncertain_finding_is_worth_part_of_a_definite_one(mode):
    target, mask = against_texts(
        finding("nodule", "uncertain"), [finding("nodule")], mode=mode, embedding=torch.ones(2, 1), uncertain=0.25
    )
    assert (target, mask) == ([1, 0 if mode == "one_hot" else 0.25], [1, 1])


@pytest.mark.parametrize("rank", range(len(BOOK.severities)))
def test_the_target_falls_with_the_distance_of_severity(rank):
    texts = [{**LEFT, "severity": severity} for severity in BOOK.severities]
    target = torch.tensor(against_texts({**LEFT, "severity": BOOK.severities[rank]}, texts)[0][1:])
    upwards, downwards = target[rank:], target[: rank + 1].flip(0)
    assert (upwards.diff() < 0).all() and (downwards.diff() < 0).all() and target[rank] == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_masked_pair_has_no_gradient(mode):
    target, mask = of(random_batch(0), mode).block()
    logits = torch.randn(target.shape, generator=torch.Generator().manual_seed(1), requires_grad=True)
    soft_sigmoid(logits, target, mask).backward()
    assert 0.05 < (mask == 0).float().mean() < 0.95
    assert (logits.grad[mask == 0] == 0).all() and (logits.grad[mask == 1] != 0).all()


@pytest.mark.parametrize("silent", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("seed", range(6))
def test_factorised_targets_equal_the_direct_form_bit_for_bit(seed, silent, monkeypatch):
    monkeypatch.setattr(module, "_CELLS", 1000)  # so that distinct texts are compared in several parts
    batch = random_batch(seed)
    target, mask = of(batch, "factorised", silent=silent, uncertain=0.3).block()
    expected_target, expected_mask = dense(batch, silent=silent, uncertain=0.3)
    assert torch.equal(target, expected_target) and torch.equal(mask, expected_mask)
    assert target.dtype == mask.dtype == torch.float32
    assert 0 < target.mean() < 1


def test_negations_speak_up_and_down_the_tree_where_likeness_ends_at_the_category():
    weights = SimilarityWeights(parent=0, child=0, sibling=0)
    tables, batch = build_tables(BOOK, weights), random_batch(7)
    target, mask = Targets.of(**batch, tables=tables, weights=weights).block()
    texts = batch["findings"][batch["told_T"]]
    expected = similarity(
        batch["findings"], batch["owner_F"], 30, texts, tables=tables, weights=weights, view_N=batch["view_N"]
    )
    assert torch.equal(target, expected[0]) and torch.equal(mask, expected[1])


@pytest.mark.parametrize("uncertain", [0.0, 0.5])
@pytest.mark.parametrize("mode", ["category", "text_cosine", "one_hot"])
@pytest.mark.parametrize("seed", range(3))
def test_other_modes_equal_a_loop_over_findings(mode, seed, uncertain, monkeypatch):
    monkeypatch.setattr(module, "_CELLS", 1000)
    batch = random_batch(seed, embedding_noise=0.05 * seed)
    target, mask = of(batch, mode, uncertain=uncertain).block()
    assert torch.equal(mask, dense(batch, uncertain=uncertain)[1])
    assert torch.allclose(target, by_loops(batch, mode, uncertain), atol=1e-6)


def by_loops(batch, mode, uncertain):
    """The table of the module, pair by pair; what a negation says comes from the direct form, finding by finding."""
    found, told = batch["findings"], batch["told_T"].tolist()
    alone = {**batch, "images": len(found), "owner_F": torch.arange(len(found)), "view_N": None}
    said, owner = dense(alone, uncertain=uncertain)[0].tolist(), batch["owner_F"].tolist()
    cosine = (batch["embedding_FD"] @ batch["embedding_FD"].T).tolist()
    category, certainty = found.category_T.tolist(), found.certainty_T.tolist()
    target = [[0.0] * len(told) for _ in range(batch["images"])]
    for (k, image), (column, text) in itertools.product(enumerate(owner), enumerate(told)):
        if mode == "one_hot":
            score = float(image == owner[text])
        elif ABSENT in (certainty[k], certainty[text]):
            score = said[k][column]
        else:
            score = float(category[k] == category[text]) * (1 if certainty[k] == certainty[text] else uncertain)
            score *= max(0.0, cosine[k][text]) if mode == "text_cosine" else 1
        target[image][column] = max(target[image][column], score)
    return torch.tensor(target)


@pytest.mark.parametrize("silent", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("mode", MODES)
def test_blocks_make_up_the_whole(mode, silent):
    targets = of(random_batch(2), mode, silent=silent)
    rows, columns = [slice(0, 7), slice(7, None)], [slice(0, 32), slice(32, 64), slice(64, 200)]
    whole = (*targets.block(), targets.own())
    assert targets.shape == whole[0].shape == (30, 70)
    for part, of_block in enumerate(
        [lambda r, c: targets.block(r, c)[0], lambda r, c: targets.block(r, c)[1], targets.own]
    ):
        assembled = torch.cat([torch.cat([of_block(r, c) for c in columns], dim=1) for r in rows])
        assert torch.equal(assembled, whole[part])


@pytest.mark.parametrize("mode", MODES)
def test_permuted_images_and_texts_permute_the_matrix(mode):
    batch = random_batch(4)
    generator = torch.Generator().manual_seed(9)
    image, text, row = (torch.randperm(n, generator=generator) for n in (30, 70, 160))
    moved_to = torch.empty_like(image).scatter_(0, image, torch.arange(30))
    place_of = torch.empty_like(row).scatter_(0, row, torch.arange(160))
    moved = {
        "findings": batch["findings"][row],
        "owner_F": moved_to[batch["owner_F"]][row],
        "images": 30,
        "told_T": place_of[batch["told_T"]][text],
        "view_N": batch["view_N"][image],
        "embedding_FD": batch["embedding_FD"][row],
    }
    for expected, got in zip(of(batch, mode).block(), of(moved, mode).block(), strict=True):
        assert torch.allclose(got, expected[image][:, text], atol=0 if mode != "text_cosine" else 1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_an_image_without_findings_is_silent_about_everything(mode):
    target, mask = targets_of([[], [LEFT], []], [0], mode=mode).block()
    assert (target.tolist(), mask.tolist()) == ([[0], [1], [0]], [[0], [1], [0]])
    target, mask = targets_of([[], [finding("nodule", "absent")]], [0], mode=mode, silent=1).block()
    assert (target.tolist(), mask.tolist()) == ([[0 if mode == "one_hot" else 1], [1]], [[1], [1]])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reports", [[[LEFT], []], [[], []], []])
def test_a_batch_without_texts_has_empty_blocks(mode, reports):
    targets = targets_of(reports, [], mode=mode)
    target, mask = targets.block()
    assert targets.shape == target.shape == mask.shape == targets.own().shape == (len(reports), 0)


@pytest.mark.parametrize("mode", MODES)
def test_a_category_that_the_view_cannot_show_is_masked(mode):
    frontal_only, both = finding("pneumothorax"), finding("nodule")
    reports = [[frontal_only, both]] * 3
    for silent in (0.0, 0.5, 1.0):
        mask = targets_of(reports, [0, 1], mode=mode, views=VIEWS, silent=silent).block()[1]
        assert mask.tolist() == [[1, 1], [0, 1], [1, 1]]


def test_text_cosine_without_embeddings_is_refused():
    batch = random_batch(0) | {"embedding_FD": None}
    with pytest.raises(MedfilipError, match="embedding_FD") as caught:
        of(batch, "text_cosine")
    assert caught.value.code == ErrorCode.CONFIG_INVALID and "factorised" in caught.value.fix
    of(batch, "category")


def test_equal_codes_with_different_texts_stay_apart_in_text_cosine():
    reports, embedding = [[LEFT], [LEFT], [LEFT]], torch.tensor([[1.0, 0.0], [0.6, 0.8], [1.0, 0.0]])
    target, _ = targets_of(reports, [0, 1, 2], mode="text_cosine", embedding=embedding).block()
    assert torch.allclose(target, torch.tensor([[1, 0.6, 1], [0.6, 1, 0.6], [1, 0.6, 1]]))
    assert (target.diagonal() == 1).all() and target[0, 2] == 1


@pytest.mark.parametrize("sites", [0, 3, 48, 52, 63, 64, 90])
def test_distinct_findings_are_those_of_different_rows(sites):
    generator = torch.Generator().manual_seed(sites)
    drawn = random_batch(0)["findings"]
    masks = torch.rand(160, sites, generator=generator) < 2 / max(sites, 1)
    masks[:80, :-1] = False  # so that the last bit alone decides somewhere
    drawn = replace(drawn, category_T=drawn.category_T % 2, severity_T=drawn.severity_T % 2 - 1, sites_TS=masks)[
        torch.arange(160) // 2 * 2
    ]
    first, number = distinct(drawn, TABLES)
    rows, expected = torch.unique(drawn.packed(), dim=0, return_inverse=True)
    assert len(first) == len(rows) < 160
    assert torch.equal(drawn.packed()[first][number], drawn.packed())
    assert len(torch.unique(torch.stack([number, expected]), dim=1).T) == len(rows)


def test_the_extremes_of_every_slot_have_keys_of_their_own():
    scalars = torch.cartesian_prod(
        torch.tensor([0, len(BOOK.categories) - 1]), torch.arange(len(CERTAINTIES)),
        torch.arange(-1, len(BOOK.severities)), torch.arange(-1, 3),
    )  # fmt: skip
    count = len(scalars)
    sites = torch.zeros(3, len(BOOK.sites), dtype=torch.bool)
    sites[1, -1] = sites[2] = True
    drawn = FindingTensors(*scalars.repeat(3, 1).unbind(dim=1), sites.repeat_interleave(count, dim=0))
    assert len(distinct(drawn, TABLES)[0]) == 3 * count


def test_autocast_changes_nothing():
    batch = random_batch(5)
    for mode in MODES:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = of(batch, mode).block()
        assert all(torch.equal(a, b) for a, b in zip(inside, of(batch, mode).block(), strict=True))
