import dataclasses

import numpy as np
import pytest

from medfilip.phantom.render.detector import MAX_VALUE, expose, tone, veil
from medfilip.phantom.render.markers import add_markers, collimate, letters
from medfilip.phantom.render.patient import Exposure, draw_exposure
from medfilip.phantom.render.styles import STYLES


def exposure(name: str = "digital", **others: object) -> Exposure:
    drawn = draw_exposure(np.random.default_rng(3), (name,))
    return dataclasses.replace(drawn, **({"style": STYLES[name], "dose": 1.0, "gain": 1.0, "contrast": 1.0} | others))


@pytest.mark.parametrize("style", STYLES)
def test_more_attenuation_is_brighter(style: str) -> None:
    line = np.linspace(0, 30, 200, dtype=np.float32)[None, :]
    values = tone(line, exposure(style))
    assert (np.diff(values[0]) >= 0).all() and values.min() >= -0.01 and 0.75 < values.max() < 1.1


def test_noise_grows_where_few_quanta_arrive_and_with_a_lower_dose() -> None:
    def spread(attenuation: float, dose: float) -> float:
        density = np.full((128, 128), attenuation, np.float32)
        shown = expose(density, veil(density), exposure(dose=dose), np.random.default_rng(1))
        slope = (tone(np.float32([attenuation + 0.5]), exposure()) - tone(np.float32([attenuation - 0.5]), exposure()))[
            0
        ]
        return float(shown.std()) / (float(slope) * MAX_VALUE)

    assert spread(22.0, 1.0) > 1.5 * spread(7.0, 1.0)
    assert spread(10.0, 0.5) == pytest.approx(2**0.5 * spread(10.0, 1.0), rel=0.05)


def test_pixels_are_twelve_bits() -> None:
    density = np.random.default_rng(0).uniform(-2, 60, (64, 64)).astype(np.float32)
    shown = expose(density, veil(density), exposure("enhanced"), np.random.default_rng(1))
    assert shown.dtype == np.uint16 and shown.max() <= MAX_VALUE


def test_styles_differ() -> None:
    density = np.full((64, 64), 8.0, np.float32)
    density[:, 32:] = 18.0
    shown = {name: expose(density, veil(density), exposure(name), np.random.default_rng(1)) for name in STYLES}
    middles = [(float(one[20:40, 5:20].mean()), float(one[20:40, 45:60].mean())) for one in shown.values()]
    assert len({(round(a / 40), round(b / 40)) for a, b in middles}) == len(STYLES) >= 4


def test_the_marker_is_on_its_side_and_legible() -> None:
    density = np.zeros((256, 256), np.float32)
    add_markers(density, exposure("portable"), "L", np.random.default_rng(5))
    columns = np.flatnonzero(density.any(axis=0))
    assert columns.min() > 128 and density.max() == 16.0
    word = letters("PORTABLE", 14)
    assert word.shape == (14, 8 * 12) and 0.2 < word.mean() < 0.6


def test_collimation_only_blackens_borders() -> None:
    always = dataclasses.replace(STYLES["digital"], border=1.1)
    image = np.full((200, 200), 3000, np.uint16)
    collimate(image, exposure(style=always), np.random.default_rng(2))
    assert (image[20:-20, 20:-20] == 3000).all() and (image < 100).any()
