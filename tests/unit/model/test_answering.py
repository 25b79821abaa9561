"""Answers: decisions, abstention, details and reasons, each from what the model says and nothing else."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from medfilip.answers import ImageFacts
from medfilip.findings.ontology import load_ontology
from medfilip.imaging.preprocess import png_decode
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.model.answering import MIN_TOLD, Answering
from medfilip.model.calibration import Calibration, OperatingPoint, Platt
from medfilip.model.diagnoser import Diagnoser
from medfilip.model.familiarity import Familiarity
from medfilip.model.question import Described, Question

SIZE = 32
RNG = np.random.default_rng(0)
PIXELS = RNG.normal(size=(6, 1, SIZE, SIZE)).astype(np.float32)


def facts(**changes):
    known = {
        "view": "frontal", "rows": 200, "columns": 100, "bits": 12, "photometric": "MONOCHROME2", "inverted": False,
        "transfer_syntax": "1.2.840.10008.1.2.1",
    }  # fmt: skip
    return ImageFacts(**(known | changes))


def point(threshold, undecided=0.0, rule="f1"):
    return OperatingPoint(
        threshold=threshold, rule=rule, sensitivity=0.9, specificity=0.8, positives=20, negatives=30,
        undecided=undecided,
    )  # fmt: skip


def curve(intercept, covariance=None):
    """Say ``sigmoid(intercept)`` of every image, nearly."""
    return Platt(slope=1e-9, intercept=intercept, positives=20, negatives=30, covariance=covariance)


@pytest.fixture
def diagnoser(tiny_checkpoint):
    loaded = Diagnoser.load(tiny_checkpoint)
    loaded.calibration = Calibration(
        categories={"nodule": curve(0.4, (0.0, 0.0, 0.04)), "mass": curve(-0.2), "pneumothorax": curve(3.0)},
        operating_points={"nodule": point(0.5), "mass": point(0.5, undecided=0.3), "pneumothorax": point(0.5)},
        alternatives={"sensitivity": {"nodule": point(0.7, rule="sensitivity")}},
    )
    return loaded


def ask(diagnoser, question, images=None, pixels=PIXELS[:1], **settings):
    answering = Answering(diagnoser, **settings)
    bank = answering.bank(question)
    images = images or [facts()] * len(pixels)
    return answering.answer(question, bank, diagnoser.image_features(pixels), images, pixels)


def test_decisions_follow_the_operating_point(diagnoser):
    nodule, mass, free = ask(diagnoser, Question(("nodule", "mass", "a strange shadow"))).findings
    assert (nodule.decision, nodule.abstention, nodule.operating_point.threshold) == ("present", None, 0.5)
    assert nodule.operating_point.sensitivity == 0.9 and nodule.operating_point.positives == 20
    assert (mass.decision, mass.abstention) == ("abstained", "uncertain")  # 0.2 logits from 0.5, and 0.3 are needed
    assert free.operating_point.rule == "half" and free.decision == ("present" if free.probability >= 0.5 else "absent")


def test_the_question_may_bring_another_threshold(diagnoser):
    [nodule] = ask(diagnoser, Question(("nodule",), operating_point="sensitivity")).findings
    assert (nodule.decision, nodule.operating_point.rule) == ("absent", "sensitivity")
    nodule, mass = ask(diagnoser, Question(("nodule", "mass"), threshold=0.05)).findings
    assert {nodule.decision, mass.decision} == {"present"} and mass.operating_point.rule == "request"
    # A rule that nothing was fitted for is told as no rule.
    assert ask(diagnoser, Question(("mass",), operating_point="youden")).findings[0].operating_point.rule == "half"


def test_the_interval_is_that_of_the_curve(diagnoser):
    nodule, mass = ask(diagnoser, Question(("nodule", "mass"))).findings
    logits = [np.log(p / (1 - p)) for p in (nodule.probability_low, nodule.probability_high)]
    assert logits == pytest.approx([0.4 - 1.96 * 0.2, 0.4 + 1.96 * 0.2], abs=1e-3)
    assert nodule.probability_low < nodule.probability < nodule.probability_high
    assert mass.probability_low is None and mass.probability_high is None


def test_nothing_is_decided_about_what_is_no_chest_or_unlike_all_that_is_known(diagnoser):
    found = ask(diagnoser, Question(("nodule",)), [facts(quality=("not_chest",))])
    assert found.abstentions == ("not_chest",) and found.unfamiliarity is None
    assert (found.findings[0].decision, found.findings[0].abstention) == ("abstained", "study")
    assert 0.5 < found.findings[0].probability < 0.65, "what the model says is told all the same"

    known = (0.01 * RNG.normal(size=(60, 1, SIZE, SIZE)) + PIXELS[0]).astype(np.float32)
    diagnoser.familiarity = Familiarity.fit(diagnoser.texture(diagnoser.image_features(known)))
    same, other = (ask(diagnoser, Question(("nodule",)), pixels=pixels) for pixels in (PIXELS[:1], -PIXELS[1:2]))
    assert same.abstentions == () and same.unfamiliarity < 1
    assert other.abstentions == ("unfamiliar_image",) and other.unfamiliarity == 1
    assert ask(diagnoser, Question(("nodule",)), pixels=-PIXELS[1:2], unfamiliar_from=1.5).abstentions == ()


def test_a_lateral_image_decides_nothing_that_only_a_frontal_one_shows(diagnoser):
    question = Question(("pneumothorax", "nodule"))
    lateral, frontal, unknown = facts(view="lateral"), facts(), facts(view="unknown")
    pneumothorax, nodule = ask(diagnoser, question, [lateral]).findings
    assert (pneumothorax.decision, pneumothorax.abstention, nodule.decision) == ("abstained", "view", "present")
    for images in ([unknown], [lateral, frontal]):
        found = ask(diagnoser, question, images, PIXELS[: len(images)])
        assert found.findings[0].decision == "present"


def test_slots_are_chosen_among_what_reports_told(diagnoser):
    diagnoser.slots = {
        "nodule": {
            "laterality": {"left": MIN_TOLD, "right": MIN_TOLD, "bilateral": 99},
            "severity": {"mild": 50, "severe": MIN_TOLD - 1},
            "site": {"upper_lobe": 20, "lower_lobe": 20, "lung_apex": 9},
        }
    }
    [nodule] = ask(diagnoser, Question(("nodule",))).findings
    assert nodule.severity is None, "there is one choice only"
    study = diagnoser.encode_images(PIXELS[:1])
    for choice, names in (
        (nodule.laterality, {"left": "left nodule", "right": "right nodule"}),
        (nodule.site, {s: f"nodule in the {s.replace('_', ' ')}" for s in ("upper_lobe", "lower_lobe", "lung_apex")}),
    ):
        scores = diagnoser.score(study, diagnoser.encode_labels(list(names.values()))).positive_NL[0]
        shares = np.exp(scores) / np.exp(scores).sum()
        assert choice.value == list(names)[int(scores.argmax())] and choice.choices == len(names)
        assert choice.share == pytest.approx(shares.max(), abs=1e-6)
    [absent] = ask(diagnoser, Question(("nodule",), threshold=0.99)).findings
    assert absent.decision == "absent" and absent.laterality is None


def test_attributes_are_those_of_the_knowledge_best_first(diagnoser):
    question = Question(
        ("nodule", "a strange shadow"), (Described("star", ("ten spikes", "bright core")),), attributes=3
    )
    nodule, free, star = ask(diagnoser, question).findings
    entry = load_knowledge().entry("nodule")
    known = {(axis, phrase.text) for axis, phrases in entry.attributes.items() for phrase in phrases}
    assert len(nodule.attributes) == 3 and {(item.axis, item.text) for item in nodule.attributes} <= known
    scores = [item.score for item in nodule.attributes]
    assert scores == sorted(scores, reverse=True)
    study, label = diagnoser.encode_images(PIXELS[:1])[0], load_ontology().label("nodule")
    negative = diagnoser.encode_labels(["nodule"]).negative_LD[0]
    texts = diagnoser.encode_texts([f"{label}. {text}" for _, text in sorted(known)])
    assert scores[0] == pytest.approx(float(max((texts - negative) @ study)), abs=1e-5)
    assert free.attributes == ()
    assert {item.text for item in star.attributes} == {"ten spikes", "bright core"}
    assert {item.axis for item in star.attributes} == {"described"}


def test_a_described_label_has_no_curve_of_a_category_of_its_name(diagnoser):
    asked = Question(("nodule",), (Described("nodule", ("ten spikes",)),))
    answering = Answering(diagnoser)
    bank = answering.bank(asked)
    assert bank.categories == ("nodule", None) and "nodule. ten spikes" in bank.prompts[1].positive
    assert bank.fingerprint != answering.bank(Question(("nodule",))).fingerprint
    named, described = ask(diagnoser, asked).findings
    assert named.calibrated and not described.calibrated
    assert answering.bank(Question()).labels == answering.default_labels == ("nodule", "mass", "pneumothorax")


def test_a_heat_map_has_the_aspect_of_the_image_that_speaks_most(diagnoser):
    images = [facts(rows=200, columns=100), facts(rows=100, columns=200)]
    question = Question(("nodule", "mass"), heat_maps="all")
    found = ask(diagnoser, question, images, PIXELS[:2])
    maps = diagnoser.heat_maps(PIXELS[:2], diagnoser.encode_labels(["nodule", "mass"]))
    for row, finding in enumerate(found.findings):
        cut = [maps[0, row][:, 8:24], maps[1, row][8:24]]
        best = int(np.argmax([values.max() for values in cut]))
        told = finding.heat_map
        assert told.image == best and (told.height, told.width) == cut[best].shape
        grey = png_decode(base64.b64decode(told.png))
        if told.peak > 0:
            expected = np.clip(cut[best] / cut[best].max(), 0, 1) * 255
            np.testing.assert_allclose(grey, expected, atol=1)
        else:
            assert not grey.any()
    present = ask(diagnoser, Question(("nodule", "mass"), heat_maps="present")).findings
    assert [finding.heat_map is None for finding in present] == [False, True]


def test_a_study_is_pooled_as_in_training(diagnoser):
    found = ask(diagnoser, Question(("nodule",)), pixels=PIXELS[:3]).findings[0]
    pooled = diagnoser.encode_images(PIXELS[:3], np.zeros(3, np.int64))
    scores = diagnoser.score(pooled, diagnoser.encode_labels(["nodule"]))
    assert found.positive_score == pytest.approx(scores.positive_NL[0, 0], abs=1e-5)
