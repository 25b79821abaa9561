import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medfilip.imaging.isolation import IsolatedDecoder
from tests.fuzz.judge import LIMITS, judge
from tests.fuzz.mutation import Recipe, bases, mutate
from tests.fuzz.run import read_seeds, run
from tests.support.dicoms import make_dicom

MUTATED = 1000


@pytest.fixture(scope="module")
def strict_decoder():
    with IsolatedDecoder(LIMITS) as shared:
        yield shared


@pytest.mark.parametrize("name", bases())
def test_undamaged_files_are_told_apart(name, strict_decoder) -> None:
    kind = judge(bases()[name], strict_decoder).kind
    assert kind.startswith("image_unsupported" if name in ("colour", "frames") else "pixels")


def test_kept_files_have_the_outcome_they_were_kept_for(strict_decoder) -> None:
    kept = read_seeds()
    assert len(kept) > 50
    changed = [outcome for recipe, outcome in kept if judge(recipe.make(), strict_decoder).kind != outcome]
    # What a codec says about damage may change with its version; that it says something may not.
    assert len(changed) <= len(kept) // 5, changed


def test_mutated_files_end_in_pixels_or_a_code() -> None:
    outcomes, _, _ = run(MUTATED, 20, read_seeds())
    assert sum(outcomes.values()) == MUTATED
    assert {"image_undecodable", "image_no_pixels", "image_too_large", "image_not_chest"} <= outcomes.keys()
    assert sum(count for kind, count in outcomes.items() if kind.startswith("pixels")) > MUTATED // 20


def test_a_recipe_makes_the_same_file_again() -> None:
    recipe = Recipe("explicit", (3, 1, 4))
    assert recipe.make() == recipe.make() != bases()["explicit"]
    assert recipe.make() == mutate(mutate(mutate(bases()["explicit"], 3), 1), 4)


numbers = st.one_of(st.integers(-70000, 70000), st.floats(allow_nan=True, allow_infinity=True, width=32))
decimals = numbers.map(lambda number: f"{number:.10g}"[:16])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    attributes=st.fixed_dictionaries(
        {},
        optional={
            "Rows": st.integers(0, 65535),
            "Columns": st.integers(0, 65535),
            "BitsStored": st.integers(0, 65535),
            "HighBit": st.integers(0, 65535),
            "PixelRepresentation": st.integers(0, 3),
            "SamplesPerPixel": st.integers(0, 5),
            "NumberOfFrames": st.integers(-3, 2**31 - 1),
            "PixelPaddingValue": st.integers(0, 32767),
            "PixelPaddingRangeLimit": st.integers(0, 32767),
            "RescaleSlope": decimals,
            "RescaleIntercept": decimals,
            "WindowCenter": st.one_of(decimals, st.lists(decimals, max_size=3)),
            "WindowWidth": st.one_of(decimals, st.lists(decimals, max_size=3)),
            "VOILUTFunction": st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID", "CUBIC", ""]),
            "PhotometricInterpretation": st.sampled_from(["MONOCHROME1", "MONOCHROME2", "RGB", ""]),
            "ImagerPixelSpacing": st.lists(decimals, max_size=3),
        },
    )
)
@pytest.mark.filterwarnings("ignore")
def test_any_values_of_the_attributes_end_in_pixels_or_a_code(attributes, strict_decoder) -> None:
    pixels = (np.arange(48 * 64) % 4096).astype(np.uint16).reshape(48, 64)
    assert judge(make_dicom(pixels, **attributes), strict_decoder).kind
