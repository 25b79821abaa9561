import numpy as np
import pytest

from medfilip.phantom.render.field import (
    blur,
    box_of,
    chord,
    curve,
    enlarge,
    halve,
    noise_patch,
    noise_tile,
    splat,
    step,
    turn,
)


def test_steps_and_chords_stay_within_their_bounds() -> None:
    distance = np.linspace(-2, 2, 401, dtype=np.float32)
    rising = step(distance, 0.5)
    assert rising[0] == 0 and rising[-1] == 1 and (np.diff(rising) >= 0).all() and rising[200] == pytest.approx(0.5)
    thick = chord(distance, 1.0)
    assert thick[0] == 0 and thick[-1] == 1 and thick.dtype == np.float32


def test_a_curve_runs_through_its_knots_and_ends_flat() -> None:
    knots = [(0.0, 1.0), (0.3, 4.0), (1.0, 2.0)]
    at = np.array([[-1.0], [0.0], [0.3], [1.0], [9.0]], np.float32)
    assert curve(at, knots).ravel() == pytest.approx([1.0, 1.0, 4.0, 2.0, 2.0], abs=1e-5)
    assert curve(at, knots).shape == at.shape


def test_enlarging_keeps_a_slope_and_halving_undoes_it() -> None:
    ramp = np.arange(16, dtype=np.float32)[None, :].repeat(16, axis=0)
    fine = enlarge(ramp, 32, 32)
    assert fine.shape == (32, 32) and np.allclose(np.diff(fine[0, 2:-2]), 0.5)
    assert np.allclose(halve(fine)[2:-2, 2:-2], ramp[2:-2, 2:-2], atol=1e-4)


def test_splatting_and_blurring_keep_the_mass() -> None:
    field = splat((20, 30), np.array([4.25, 10.0]), np.array([7.5, 12.0]), np.array([3.0, 1.0]))
    assert field.sum() == pytest.approx(4.0) and field[4, 7] == pytest.approx(3 * 0.75 * 0.5)
    for stride in (1, 2):
        assert blur(field, stride).sum() == pytest.approx(4.0)
    assert splat((5, 5), np.array([-1.0, 9.0]), np.array([1.0, 1.0]), np.ones(2)).sum() == 0


@pytest.mark.parametrize("kind", ["white", "grain", "mesh"])
def test_noise_is_shared_and_cut_differently(kind: str) -> None:
    assert noise_tile(kind, 80) is noise_tile(kind, 80)
    one, same, other = (noise_patch(kind, np.random.default_rng(seed), 64) for seed in (1, 1, 2))
    assert one.shape == (64, 64) and np.array_equal(one, same) and not np.array_equal(one, other)
    if kind != "mesh":
        assert abs(float(one.mean())) < 0.1 and 0.5 < float(one.std()) < 1.3


def test_turning_is_a_rotation() -> None:
    x, y = turn((np.array([1.0]), np.array([0.0])), np.array([1.0]))  # the half angle's tangent: a quarter turn
    assert (float(x[0]), float(y[0])) == pytest.approx((0.0, 1.0))


def test_box_of_a_mask() -> None:
    mask = np.zeros((9, 9), bool)
    mask[2, 3] = mask[5, 7] = True
    assert box_of(mask) == (2, 3, 6, 8)
