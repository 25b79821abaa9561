import numpy as np
import pytest

from medfilip.phantom.render.geometry import LEFT, RIGHT, Frontal, Shape
from medfilip.phantom.render.patient import draw_exposure, draw_patient

SIZE = 256


def frontal(number: int = 0, shape: Shape | None = None) -> Frontal:
    patient = draw_patient(np.random.default_rng([1, number]), "M", 60)
    return Frontal(patient, draw_exposure(np.random.default_rng([2, number]), ("digital",)), shape or Shape(), SIZE)


@pytest.mark.parametrize("number", range(12))
def test_a_normal_chest_is_normal(number: int) -> None:
    g = frontal(number)
    assert g.ratio < 0.5
    assert g.dome_at(RIGHT) < g.dome_at(LEFT), "the liver keeps the right hemidiaphragm higher"
    assert g.hila[LEFT][1] < g.hila[RIGHT][1], "the left pulmonary artery arches over its bronchus"
    left, right = g.heart_widths
    assert left > 1.7 * right, "two thirds of the heart lie on the left"
    assert 0.36 < g.carina[1] - 0.2 * (g.dome - 0.672) < 0.37


def test_places_become_pixels_and_back() -> None:
    g = frontal(3)
    row, column = g.pixel(0.2, 0.4)
    at_row, at_column = round(row), round(column)
    assert float(g.y[at_row, 0]) == pytest.approx(0.4, abs=1 / SIZE)
    assert float(g.x[at_row, at_column]) == pytest.approx(0.2, abs=1 / SIZE)
    rows, columns = g.pixels(np.array([0.2]), np.array([0.4]))
    assert (float(rows[0]), float(columns[0])) == pytest.approx((row, column), abs=1e-3)


def test_windows_stay_inside_the_image() -> None:
    g = frontal()
    for x, y in ((-0.6, -0.3), (0.6, 1.4), (0.0, 0.5)):
        rows, columns = g.window(x, y, 0.1, 0.1)
        assert 0 <= rows.start < rows.stop <= SIZE and 0 <= columns.start < columns.stop <= SIZE


def test_shapes_do_what_they_say() -> None:
    plain = frontal()
    assert frontal(shape=Shape(heart=0.6)).ratio == 0.6
    assert frontal(shape=Shape(inflation=0.05)).dome > plain.dome > frontal(shape=Shape(inflation=-0.05)).dome
    lifted = frontal(shape=Shape(lift=(0.03, 0.0)))
    assert lifted.dome_at(RIGHT) < plain.dome_at(RIGHT) and lifted.dome_at(LEFT) == plain.dome_at(LEFT)
    bent = frontal(shape=Shape(curve=-0.05))
    assert float(bent.spine.min()) < -0.02 and float(np.abs(plain.spine).max()) == 0
    knob = frontal(shape=Shape(aorta=1.2)).left_border[60:90] - plain.left_border[60:90]
    assert float(knob.max()) > 0.02
