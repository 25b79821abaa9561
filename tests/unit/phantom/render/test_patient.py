"""Confounders (view, style, positioning, exposure, markers) tell nothing about findings."""

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from medfilip.phantom.draw import ALL_STYLES, exposure_of, patient_of
from medfilip.phantom.lesions import CATEGORIES, DEVICES, sample_study
from medfilip.phantom.render.styles import STYLES

STUDIES = 1500


@pytest.fixture(scope="module")
def sampled() -> tuple[list, list[set[str]]]:
    exposures = [exposure_of(3, index) for index in range(STUDIES)]
    lesions = [sample_study(3, index, bedside=one.portable) for index, one in enumerate(exposures)]
    return exposures, [{lesion.category for lesion in shown} for shown in lesions]


def test_an_exposure_is_drawn_without_knowing_the_lesions() -> None:
    """By construction: its stream is its own, and the lesions' streams are the same whatever it comes out as."""
    assert exposure_of(1, 5) == exposure_of(1, 5) and patient_of(1, 5, "F", 40) == patient_of(1, 5, "F", 40)
    upright = {one.key: one for one in sample_study(1, 5, bedside=False)}
    bedside = {one.key: one for one in sample_study(1, 5, bedside=True)}
    findings = {key for key, one in (upright | bedside).items() if one.category not in DEVICES}
    assert all(upright.get(key) == bedside.get(key) for key in findings)


def test_a_category_is_drawn_without_knowing_the_others() -> None:
    for index in range(40):
        alone = [one for name in CATEGORIES for one in sample_study(2, index, bedside=False, categories=(name,))]
        together = sample_study(2, index, bedside=False)
        assert {one.key for one in together} >= {one.key for one in alone if one.category != "hypoinflation"}


def p_value(first: list[bool], second: list[bool]) -> float:
    table = np.array(
        [[sum(a == x and b == y for a, b in zip(first, second, strict=True)) for y in (0, 1)] for x in (0, 1)]
    )
    return float(chi2_contingency(table, correction=False)[1])


def test_confounders_are_independent_of_findings(sampled) -> None:
    exposures, shown = sampled
    median = {
        name: np.median([getattr(one, name) for one in exposures]) for name in ("dose", "gain", "contrast", "zoom")
    }
    confounders = {
        "view": [one.portable for one in exposures],
        "rotation": [one.rotation > 0 for one in exposures],
        "tilt": [one.tilt > 0 for one in exposures],
        **{name: [getattr(one, name) > middle for one in exposures] for name, middle in median.items()},
        **{style: [one.style.name == style for one in exposures] for style in ALL_STYLES},
    }
    findings = [category for category in CATEGORIES if category not in DEVICES]
    values = [
        p_value(values, [category in one for one in shown]) for values in confounders.values() for category in findings
    ]
    # Were they independent, the smallest of so many would rarely be below a thousandth over their number.
    assert min(values) > 0.001 / len(values) * 5 and np.mean(np.array(values) < 0.05) < 0.10


def test_devices_are_independent_of_findings_but_for_the_bedside(sampled) -> None:
    exposures, shown = sampled
    values = []
    for bedside in (True, False):
        own = [one for one, exposure in zip(shown, exposures, strict=True) if exposure.portable == bedside]
        for device in DEVICES:
            for category in (
                "pneumothorax",
                "pleural_effusion",
                "cardiomegaly",
                "edema",
                "consolidation",
                "atelectasis",
            ):
                with_device, with_finding = [device in one for one in own], [category in one for one in own]
                if sum(with_device) > 20 and sum(with_finding) > 20:
                    values.append(p_value(with_device, with_finding))
    assert len(values) > 30 and min(values) > 1e-4 and np.mean(np.array(values) < 0.05) < 0.13
    ap, pa = ([one for one, e in zip(shown, exposures, strict=True) if e.portable == side] for side in (True, False))
    assert (
        np.mean(["endotracheal_tube" in one for one in ap])
        > 0.1
        > 3 * np.mean(["endotracheal_tube" in one for one in pa])
    )


def test_every_category_is_common_enough_to_be_learned(sampled) -> None:
    _, shown = sampled
    shares = {category: np.mean([category in one for one in shown]) for category in CATEGORIES}
    assert min(shares.values()) > 0.035 and max(shares.values()) < 0.2, shares
    assert 1.5 < np.mean([len(one) for one in shown]) < 3.0


def test_a_style_can_be_held_out() -> None:
    rest = tuple(name for name in STYLES if name != "film")
    assert {exposure_of(0, index, rest).style.name for index in range(200)} == set(rest)
    assert {exposure_of(0, index, ("film",)).style.name for index in range(20)} == {"film"}
    for index in range(200):
        one = exposure_of(0, index)
        assert STYLES[one.style.name].bedside in (None, one.portable)
