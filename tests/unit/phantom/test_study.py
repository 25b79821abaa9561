import itertools

import numpy as np
import pytest

from medfilip.core.errors import MedfilipError
from medfilip.findings.finding import Laterality
from medfilip.phantom.draw import draw
from medfilip.phantom.lesions import CATEGORIES, SIDES, Lesion, sample_lesions, study_truth
from medfilip.phantom.study import generate, make_study

SIZE = 128


def same(a, b) -> bool:
    return (a.text, a.findings, a.study_uid, a.patient_id, a.boxes, a.study_truth) == (
        b.text,
        b.findings,
        b.study_uid,
        b.patient_id,
        b.boxes,
        b.study_truth,
    ) and np.array_equal(a.image, b.image)


def test_a_study_depends_on_seed_and_index_alone() -> None:
    few, many = list(generate(3, 5, size=SIZE)), list(generate(6, 5, size=SIZE))
    assert all(same(a, b) for a, b in zip(few, many, strict=False))
    assert same(many[4], make_study(5, 4, size=SIZE))
    other = make_study(6, 4, size=SIZE)
    assert not np.array_equal(many[4].image, other.image) and many[4].study_uid != other.study_uid


def test_images_hold_12_bits_and_use_them() -> None:
    for study in generate(6, 0, size=SIZE):
        assert study.image.dtype == np.uint16 and study.image.shape == (SIZE, SIZE)
        assert study.image.max() <= 4095 and np.ptp(study.image) > 2000


def test_a_size_at_which_nothing_shows_is_refused() -> None:
    with pytest.raises(MedfilipError, match="at least 64"):
        make_study(0, 0, size=32)


def test_identifiers() -> None:
    studies = [make_study(9, index, size=64) for index in range(60)]
    assert len({study.study_uid for study in studies}) == len({study.report_id for study in studies}) == 60
    assert all(study.study_uid.startswith("2.25.") and len(study.study_uid) <= 64 for study in studies)
    patients: dict[str, list] = {}
    for study in studies:
        patients.setdefault(study.patient_id, []).append(study)
    assert {len(one) for one in patients.values()} == {1, 2}
    assert all(len({(s.sex, s.age, s.patient_name) for s in one}) == 1 for one in patients.values())


def lesion(category: str, side: Laterality | None, **others: object) -> Lesion:
    defaults: dict[str, object] = {"severity": "moderate"}
    if category == "nodule":
        defaults = {"size_mm": 14.0, "site": "upper_lobe"}
    if category == "consolidation":
        defaults["site"] = "lower_lobe"
    return Lesion(category=category, laterality=side, **(defaults | others))


SIDED = [lesion(category, side) for category in CATEGORIES if category != "cardiomegaly" for side in SIDES]


@pytest.mark.parametrize("one", [*SIDED, lesion("cardiomegaly", None)], ids=lambda one: one.key)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_lesion_changes_the_pixels_of_its_box_and_no_others(one: Lesion, seed: int) -> None:
    plain, _ = draw((), seed, 7, 256)
    shown, boxes = draw((one,), seed, 7, 256)
    row0, col0, row1, col1 = boxes[one.key]
    changed = shown != plain
    inside = changed[row0:row1, col0:col1]
    assert inside.mean() > 0.2
    difference = np.abs(shown.astype(int) - plain)
    assert difference[row0:row1, col0:col1].max() > 250
    difference[max(row0 - 3, 0) : row1 + 3, max(col0 - 3, 0) : col1 + 3] = 0
    assert difference.max() < 130  # soft borders below the visibility that makes a box


@pytest.mark.parametrize("one", SIDED, ids=lambda one: one.key)
def test_the_patients_left_is_on_the_right_of_the_image(one: Lesion) -> None:
    _, boxes = draw((one,), 3, 1, 256)
    _, col0, _, col1 = boxes[one.key]
    assert ((col0 + col1) / 2 > 128) == (one.laterality is Laterality.LEFT)


def test_sites_are_where_they_are_named() -> None:
    def middle(site: str) -> float:
        _, boxes = draw((lesion("nodule", Laterality.RIGHT, site=site),), 2, 5, 256)
        row0, _, row1, _ = boxes["nodule/right"]
        return (row0 + row1) / 2

    assert middle("upper_lobe") < middle("middle_lobe") < middle("lower_lobe")


@pytest.mark.parametrize("category", ["pleural_effusion", "cardiomegaly", "pneumothorax", "consolidation"])
def test_severity_grows_the_lesion(category: str) -> None:
    side = None if category == "cardiomegaly" else Laterality.LEFT
    plain, _ = draw((), 4, 2, 256)
    changes = []
    for severity in ("mild", "moderate", "severe"):
        shown, _ = draw((lesion(category, side, severity=severity),), 4, 2, 256)
        changes.append(int(np.abs(shown.astype(int) - plain).sum()))
    assert all(b > 1.15 * a for a, b in itertools.pairwise(changes)), changes


def test_air_is_dark_and_fluid_is_bright() -> None:
    plain, _ = draw((), 4, 2, 256)
    for category, sign in (("pneumothorax", -1), ("pleural_effusion", 1), ("nodule", 1), ("consolidation", 1)):
        shown, boxes = draw((lesion(category, Laterality.LEFT),), 4, 2, 256)
        row0, col0, row1, col1 = boxes[f"{category}/left"]
        box = (slice(row0, row1), slice(col0, col1))
        assert sign * (shown[box].astype(float).mean() - plain[box].mean()) > 20, category


def test_every_sampled_lesion_can_be_seen_beside_the_others() -> None:
    """With all other lesions of the study around it, each still changes its box."""
    for index in range(40):
        lesions = sample_lesions(np.random.default_rng([8, index]))
        whole, boxes = draw(lesions, 8, index, 128)
        assert set(boxes) == {one.key for one in lesions}
        for one in lesions:
            without, _ = draw(tuple(other for other in lesions if other is not one), 8, index, 128)
            row0, col0, row1, col1 = boxes[one.key]
            difference = np.abs(whole.astype(int) - without)[row0:row1, col0:col1]
            assert difference.max() > 150, (index, one)


def test_prevalence_and_independence_of_sides() -> None:
    truths = [study_truth(sample_lesions(np.random.default_rng([4, index]))) for index in range(1500)]
    for category in CATEGORIES:
        share = np.mean([truth[category].status == "present" for truth in truths])
        assert 0.30 < share < 0.42, category
    both = np.mean([truth["nodule"].laterality == Laterality.BILATERAL for truth in truths])
    assert 0.02 < both < 0.06


def test_study_truth_sums_up_both_sides() -> None:
    lesions = (
        lesion("consolidation", Laterality.LEFT, severity="mild", site="upper_lobe"),
        lesion("consolidation", Laterality.RIGHT, severity="severe", site="lower_lobe"),
    )
    truth = study_truth(lesions)
    assert set(truth) == set(CATEGORIES)
    assert truth["consolidation"].laterality == Laterality.BILATERAL
    assert truth["consolidation"].sites == ("lower_lobe", "upper_lobe") and truth["consolidation"].severity == "severe"
    assert truth["nodule"].status == "absent" and truth["nodule"].laterality is None
