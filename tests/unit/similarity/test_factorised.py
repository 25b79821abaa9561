"""The similarity matrix: the order of targets, negation by logic, and silence masked out."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medfilip.findings.codes import Codebook
from medfilip.findings.ontology import load_ontology
from medfilip.similarity.codes import FindingTensors
from medfilip.similarity.factorised import similarity
from medfilip.similarity.tables import VIEWS, SimilarityWeights, build_tables

BOOK = Codebook.of(load_ontology())
WEIGHTS = SimilarityWeights()
TABLES = build_tables(BOOK, WEIGHTS)


def finding(category, certainty="present", **slots):
    return {"category": category, "certainty": certainty, **slots}


def effusion(certainty="present", **slots):
    return finding("pleural_effusion", certainty, **slots)


def matrix(reports, texts, weights=WEIGHTS, views=None):
    rows = [BOOK.encode(item) for report in reports for item in report]
    owner = torch.tensor([i for i, report in enumerate(reports) for _ in report], dtype=torch.int64)
    columns = [BOOK.encode(text) for text in texts]
    view = None if views is None else torch.tensor([VIEWS.index(name) for name in views])
    return similarity(
        FindingTensors.from_rows(rows, BOOK), owner, len(reports), FindingTensors.from_rows(columns, BOOK),
        tables=TABLES, weights=weights, view_N=view,
    )  # fmt: skip


def pair(report, text, **options):
    target, mask = matrix([report], [text], **options)
    return target.item(), mask.item()


LEFT = finding("consolidation", severity="severe", laterality="left", sites=["lower_lobe"])


def test_the_targets_are_ordered_as_the_method_asks():
    texts = [
        LEFT,
        {**LEFT, "severity": "moderate"},
        {**LEFT, "laterality": "right", "severity": "borderline"},
        finding("airspace_disease", laterality="left", severity="severe", sites=["lower_lobe"]),
        finding("pneumonia", laterality="left", severity="severe", sites=["lower_lobe"]),
        finding("atelectasis", laterality="left", severity="severe", sites=["lower_lobe"]),
        finding("cardiomegaly", severity="severe"),
    ]
    target, mask = matrix([[LEFT]], texts)
    values = target[0].tolist()
    assert values[0] == pytest.approx(1)
    assert values == sorted(values, reverse=True) and len(set(values)) == len(values)
    assert mask[0].tolist() == [1, 1, 1, 1, 1, 1, 0]


def test_exact_values_by_hand():
    # side differs, severity two ranks apart: .5 + .3 · 0 + .2 · (1 − 2/5)
    assert pair([LEFT], {**LEFT, "laterality": "right", "severity": "mild"})[0] == pytest.approx(0.62)
    # the text has no severity: (.5 + .3 · .5) / .8, bilateral against left
    text = finding("consolidation", laterality="bilateral")
    assert pair([LEFT], text)[0] == pytest.approx((0.5 + 0.15) / 0.8)
    # another region on the same side
    assert pair([LEFT], {**LEFT, "sites": ["upper_lobe"]})[0] == pytest.approx(0.7)


def test_a_missing_slot_does_not_lower_the_target():
    assert pair([LEFT], finding("consolidation"))[0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("image", "text", "expected"),
    [
        (finding("nodule"), finding("nodule", "absent"), (0, 1)),
        (finding("nodule", "absent"), finding("nodule"), (0, 1)),
        (finding("nodule", "absent"), finding("nodule", "absent"), (1, 1)),
        (finding("nodule", "uncertain"), finding("nodule", "uncertain"), (1, 1)),
        (finding("nodule", "uncertain"), finding("nodule"), (0.5, 1)),
        (finding("nodule"), finding("nodule", "uncertain"), (0.5, 1)),
        (finding("nodule", "absent"), finding("nodule", "uncertain"), (0, 1)),
        (finding("nodule", "uncertain"), finding("nodule", "absent"), (0.5, 1)),
        (finding("nodule", "absent"), finding("cardiomegaly"), (0, 0)),
        (finding("nodule"), finding("cardiomegaly", "absent"), (0, 0)),
    ],
)
def test_certainty(image, text, expected):
    assert pair([image], text) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("image", "text", "expected"),
    [
        # no opacity: no consolidation either, but not the other way round
        (finding("lung_opacity", "absent"), finding("consolidation"), (0, 1)),
        (finding("lung_opacity", "absent"), finding("consolidation", "absent"), (1, 1)),
        (finding("consolidation", "absent"), finding("lung_opacity"), (0, 0)),
        (finding("consolidation", "absent"), finding("lung_opacity", "absent"), (0, 0)),
        (finding("consolidation"), finding("lung_opacity", "absent"), (0, 1)),
        (finding("lung_opacity"), finding("consolidation", "absent"), (0, 0)),
        # no effusion on the left says nothing about the right
        (effusion("absent", laterality="left"), effusion(), (0, 0)),
        (effusion("absent", laterality="left"), effusion(laterality="left"), (0, 1)),
        (effusion("absent", laterality="left"), effusion(laterality="right"), (0, 0)),
        (effusion("absent", laterality="bilateral"), effusion(laterality="right"), (0, 1)),
        (effusion("absent"), effusion("absent", laterality="left"), (1, 1)),
        (effusion(laterality="right"), effusion("absent", laterality="left"), (0, 0)),
        # no large effusion leaves room for a small one
        (effusion("absent", severity="severe"), effusion(severity="mild"), (0, 0)),
        (finding("nodule", "absent", sites=["upper_lobe"]), finding("nodule", sites=["lower_lobe"]), (0, 0)),
        (finding("nodule", "absent", sites=["upper_lobe"]), finding("nodule", sites=["lung_apex"]), (0, 1)),
    ],
)  # fmt: skip
def test_negation_follows_logic(image, text, expected):
    assert pair([image], text) == pytest.approx(expected)


def test_the_maximum_over_the_findings_of_an_image_counts():
    report = [effusion(laterality="right"), effusion("absent", laterality="left")]
    assert pair(report, effusion(laterality="right"))[0] == pytest.approx(1)
    # one finding gives .625 for the other side, the explicit negation takes nothing from the entailed category
    assert pair(report, effusion())[0] == pytest.approx(1)


def test_a_negation_beats_what_a_relative_lends():
    report = [finding("lung_opacity"), finding("consolidation", "absent")]
    assert pair(report[:1], finding("consolidation"))[0] == pytest.approx(WEIGHTS.child)
    assert pair(report, finding("consolidation")) == (0, 1)


def test_an_image_without_findings_is_masked_out():
    target, mask = matrix([[], [LEFT]], [LEFT])
    assert target.tolist() == [[0], [1]]
    assert mask.tolist() == [[0], [1]]


def test_silence_can_be_counted_as_absence():
    weights = SimilarityWeights(silent=0.25)
    assert pair([LEFT], finding("cardiomegaly"), weights=weights) == (0, 0.25)
    assert pair([LEFT], finding("cardiomegaly", "absent"), weights=weights) == (1, 0.25)
    assert pair([LEFT], LEFT, weights=weights) == (pytest.approx(1), 1)


def test_a_category_that_the_view_cannot_show_is_masked():
    text = finding("pneumothorax", "absent")
    _, mask = matrix([[text]] * 3, [text, finding("nodule")], SimilarityWeights(silent=0.5), views=VIEWS)
    assert mask.tolist() == [[1, 0.5], [0, 0.5], [1, 0.5]]


FINDINGS = st.builds(
    finding,
    category=st.sampled_from(["lung_opacity", "consolidation", "pneumonia", "nodule", "pleural_effusion", "edema"]),
    certainty=st.sampled_from(["present", "absent", "uncertain"]),
    severity=st.sampled_from([None, *BOOK.severities]),
    laterality=st.sampled_from([None, "left", "right", "bilateral"]),
    sites=st.lists(st.sampled_from(BOOK.sites), max_size=3),
)


@settings(deadline=None)
@given(item=FINDINGS)
def test_a_finding_matches_its_own_text_fully(item):
    assert pair([item], item) == pytest.approx((1, 1))


@given(
    reports=st.lists(st.lists(FINDINGS, max_size=3), min_size=1, max_size=4),
    texts=st.lists(FINDINGS, min_size=1, max_size=4),
)
def test_bounds_and_independence_of_the_batch(reports, texts):
    target, mask = matrix(reports, texts)
    assert ((target >= 0) & (target <= 1)).all()
    assert set(mask.flatten().tolist()) <= {0.0, 1.0}
    assert (target[mask == 0] == 0).all()
    for row, report in enumerate(reports):
        alone, alone_mask = matrix([report], texts)
        assert torch.equal(alone[0], target[row]) and torch.equal(alone_mask[0], mask[row])


@settings(deadline=None, max_examples=50)
@given(items=st.lists(FINDINGS, min_size=2, max_size=5))
def test_packing_and_concatenating_keep_findings(items):
    rows = [BOOK.encode(item) for item in items]
    whole = FindingTensors.from_rows(rows, BOOK)
    parts = [FindingTensors.from_rows(rows[:1], BOOK), FindingTensors.from_rows(rows[1:], BOOK)]
    for got in (
        FindingTensors.unpacked(whole.packed()),
        FindingTensors.unpacked(torch.cat([part.packed() for part in parts])),
        whole.to("cpu"),
    ):
        assert all(torch.equal(a, b) for a, b in zip(got.columns(), whole.columns(), strict=True))
