"""Every category on a frontal image: where it is, how strong it is, and that nothing else changes."""

import itertools

import numpy as np
import pytest

from medfilip.findings.finding import Laterality
from medfilip.phantom.draw import PhantomImage, draw
from medfilip.phantom.lesions import CATEGORIES, KINDS, Lesion, sample_study
from medfilip.phantom.render.frontal import PAINTERS, SHAPED
from medfilip.phantom.render.geometry import Frontal
from medfilip.phantom.render.shape import shape_of

SIZE = 192
STYLE = ("digital",)
LEFT, RIGHT = Laterality.LEFT, Laterality.RIGHT
SITES = {"surgical_material": "hilum", "chest_tube": "lung_apex", "atelectasis": "lower_lobe"}
POSITIONS = {
    "central_venous_catheter": "superior_vena_cava",
    "endotracheal_tube": "above_carina",
    "enteric_tube": "stomach",
}
DIAMETERS = {"nodule": 22.0, "mass": 50.0, "cavity": 45.0}
DARK = {"pneumothorax", "pneumoperitoneum", "subcutaneous_emphysema"}
BRIGHT = {
    "pleural_effusion", "consolidation", "nodule", "mass", "edema", "interstitial_opacity", "atelectasis",
    "endotracheal_tube", "enteric_tube", "central_venous_catheter", "chest_tube", "pacemaker", "sternotomy_wires",
    "surgical_material", "aortic_calcification",
}  # fmt: skip


def lesion(category: str, side: Laterality | None = None, **others: object) -> Lesion:
    kind = KINDS[category]
    fields: dict[str, object] = {
        "laterality": side or (kind.sides[0] if kind.sides else None),
        "severity": "moderate" if kind.grades else None,
        "site": SITES.get(category, "upper_lobe" if category in (*DIAMETERS, "consolidation") else None),
        "size_mm": DIAMETERS.get(category),
        "position": POSITIONS.get(category),
    }
    return Lesion.model_validate({"category": category} | fields | others)


def shown(one: Lesion | None, seed: int = 0, size: int = SIZE) -> PhantomImage:
    return draw((one,) if one else (), seed, 7, size, styles=STYLE)


def unmoved(category: str, side: Laterality | None) -> Lesion:
    """Lesion that does not move the anatomy: only small atelectases lose no volume."""
    return lesion(category, side, **({"severity": "mild"} if category == "atelectasis" else {}))


SINGLE = [unmoved(category, side) for category in PAINTERS for side in (KINDS[category].sides or (None,))]
SIDED = [one for one in SINGLE if one.laterality is not None]


def test_every_category_has_a_painter() -> None:
    assert {*PAINTERS, *SHAPED} == {*CATEGORIES} and not {*PAINTERS} & {*SHAPED}


@pytest.mark.parametrize("one", SINGLE, ids=lambda one: one.key)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_lesion_changes_the_pixels_of_its_mask_and_no_others(one: Lesion, seed: int) -> None:
    plain, image = shown(None, seed), shown(one, seed)
    assert plain.masks == {} and set(image.masks) == {one.key}
    mask = image.masks[one.key]
    row0, col0, row1, col1 = image.boxes[one.key]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    assert (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1) == (row0, col0, row1, col1)
    difference = np.abs(image.pixels.astype(int) - plain.pixels)
    assert np.median(difference[mask]) > 40 and difference[mask].max() > 120
    outside = difference.copy()
    outside[max(row0 - 3, 0) : row1 + 3, max(col0 - 3, 0) : col1 + 3] = 0
    assert outside.max() < 330 and np.mean(outside > 100) < 0.01  # soft borders below the visibility of a mask
    signed = (image.pixels.astype(int) - plain.pixels)[mask].mean()
    if one.category in DARK | BRIGHT:
        assert (signed > 0) == (one.category in BRIGHT)


# A central line enters on its side and ends on the right, where the superior vena cava is.
ON_THEIR_SIDE = [one for one in SIDED if one.category != "central_venous_catheter"]


@pytest.mark.parametrize("one", ON_THEIR_SIDE, ids=lambda one: one.key)
def test_the_patients_left_is_on_the_right_of_the_image(one: Lesion) -> None:
    rows, columns = np.nonzero(shown(one, 3).masks[one.key])
    middle = np.median(columns) / SIZE - 0.5
    assert (middle > 0) == (one.laterality is LEFT) and len(rows)


@pytest.mark.parametrize("category", ["nodule", "mass", "cavity", "consolidation"])
def test_sites_are_where_they_are_named(category: str) -> None:
    def middle(site: str) -> float:
        row0, _, row1, _ = shown(lesion(category, RIGHT, site=site), 2).boxes[f"{category}/right"]
        return (row0 + row1) / 2

    assert middle("upper_lobe") < middle("middle_lobe") < middle("lower_lobe")


GRADED = [category for category in PAINTERS if KINDS[category].grades]


@pytest.mark.parametrize("category", GRADED)
def test_severity_grows_the_lesion(category: str) -> None:
    for seed in (4, 5):
        plain = shown(None, seed)
        changes = []
        for severity in KINDS[category].grades:
            image = shown(lesion(category, severity=severity), seed)
            changes.append(int(np.abs(image.pixels.astype(int) - plain.pixels).sum()))
        assert all(b > 1.1 * a for a, b in itertools.pairwise(changes)), changes


def geometry(one: Lesion | None, index: int) -> Frontal:
    from medfilip.phantom.draw import exposure_of, patient_of

    patient = patient_of(0, index, "M", 50)
    return Frontal(patient, exposure_of(0, index, STYLE), shape_of((one,) if one else (), patient), SIZE)


def cardiothoracic_ratio(one: Lesion | None, index: int) -> float:
    """Measure it as on film: widest extent of the heart over the inner width of the cage."""
    g = geometry(one, index)
    columns = np.flatnonzero((g.heart > 0.5).any(axis=0))
    return (columns[-1] - columns[0] + 1) / (2 * float(g.cage.max()) * g.exposure.zoom * SIZE)


def test_the_heart_is_as_wide_as_it_is_said_to_be() -> None:
    for index in range(8):
        normal = cardiothoracic_ratio(None, index)
        mild, moderate, severe = (
            cardiothoracic_ratio(lesion("cardiomegaly", severity=grade), index)
            for grade in ("mild", "moderate", "severe")
        )
        assert normal < 0.515 < mild < moderate < severe < 0.75, (normal, mild, moderate, severe)
        assert geometry(None, index).ratio < 0.5 < geometry(lesion("cardiomegaly", severity="mild"), index).ratio


def test_inflation_moves_the_diaphragm() -> None:
    domes = [
        geometry(lesion(category, severity=grade), 1).dome
        for category, grade in (
            ("hypoinflation", "severe"), ("hypoinflation", "mild"),
            ("hyperinflation", "mild"), ("hyperinflation", "severe"),
        )
    ]  # fmt: skip
    assert domes == sorted(domes) and domes[1] < geometry(None, 1).dome < domes[2]


def test_a_collapsing_lobe_raises_its_hemidiaphragm() -> None:
    for side in (LEFT, RIGHT):
        one = lesion("atelectasis", side, severity="severe")
        assert geometry(one, 2).dome_at(side) < geometry(None, 2).dome_at(side) - 0.03
        assert (geometry(one, 2).front > geometry(None, 2).front) == (side is LEFT), "the mediastinum follows"


def test_the_tip_of_a_tube_is_where_the_report_says() -> None:
    high, low = (shown(lesion("endotracheal_tube", tip_mm=tip)) for tip in (60.0, 20.0))
    difference = low.boxes["endotracheal_tube"][2] - high.boxes["endotracheal_tube"][2]
    assert difference == pytest.approx(40 / 360 * SIZE, abs=3)


def test_every_sampled_lesion_can_be_seen_beside_the_others() -> None:
    """With all other lesions of the study around it, each still changes its mask."""
    for index in range(60):
        lesions = sample_study(8, index, bedside=index % 2 == 0, prevalence=0.2)
        whole = draw(lesions, 8, index, 128)
        assert list(whole.masks) == [one.key for one in lesions]
        for one in lesions:
            if one.category in SHAPED or one.category in ("hypoinflation", "atelectasis"):
                continue
            without = draw(tuple(other for other in lesions if other is not one), 8, index, 128)
            difference = np.abs(whole.pixels.astype(int) - without.pixels)[whole.masks[one.key]]
            assert difference.max() > (100 if one.category not in ("rib_fracture", "aortic_calcification") else 25), (
                index,
                one,
            )
