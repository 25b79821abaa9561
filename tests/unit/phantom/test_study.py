import hashlib

import numpy as np
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.findings.finding import Laterality
from medfilip.phantom.lesions import BASIC_CATEGORIES, CATEGORIES, Lesion, sample_lesions, sample_study, study_truth
from medfilip.phantom.study import StudyOptions, generate, make_study

SIZE = 128


def same(a, b) -> bool:
    return (
        (a.text, a.findings, a.study_uid, a.patient_id, a.boxes, a.study_truth, len(a.images))
        == (b.text, b.findings, b.study_uid, b.patient_id, b.boxes, b.study_truth, len(b.images))
    ) and all(np.array_equal(one.pixels, other.pixels) for one, other in zip(a.images, b.images, strict=True))


def test_a_study_depends_on_seed_and_index_alone() -> None:
    few, many = list(generate(3, 5, size=SIZE)), list(generate(6, 5, size=SIZE))
    assert all(same(a, b) for a, b in zip(few, many, strict=False))
    assert same(many[4], make_study(5, 4, size=SIZE))
    other = make_study(6, 4, size=SIZE)
    assert not np.array_equal(many[4].image, other.image) and many[4].study_uid != other.study_uid


def test_pixels_are_the_same_on_every_machine() -> None:
    """A changed digest means other images for the same seed: raise GENERATOR_VERSION, or find the inexact operation."""
    digest = hashlib.sha256()
    for study in generate(12, 7, options=StudyOptions(size=96, lateral=0.6)):
        for image in study.images:
            digest.update(image.pixels.astype("<u2").tobytes())
            for key, box in image.boxes.items():
                digest.update(f"{key}{box}".encode())
    assert digest.hexdigest() == GOLDEN


GOLDEN = "fbf296d6f8c5f1cce62d470176b67a512a3962c28e4f1370b0cf870d6531bd81"


def test_images_hold_12_bits_and_use_them() -> None:
    for study in generate(6, 0, options=StudyOptions(size=SIZE, lateral=1.0)):
        for image in study.images:
            assert image.pixels.dtype == np.uint16 and image.pixels.shape == (SIZE, SIZE)
            assert image.pixels.max() <= 4095 and np.ptp(image.pixels) > 2000


def test_a_size_at_which_nothing_shows_is_refused() -> None:
    with pytest.raises(MedfilipError, match="at least 64"):
        make_study(0, 0, size=32)


@pytest.mark.parametrize(
    "options", [{"categories": ("nodul",)}, {"categories": ()}, {"styles": ("neon",)}, {"styles": ()}]
)
def test_options_that_do_not_exist_are_refused(options: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(MedfilipError) as caught:
        StudyOptions(**options)
    assert caught.value.code is ErrorCode.CONFIG_INVALID


def test_identifiers() -> None:
    studies = [make_study(9, index, size=64) for index in range(60)]
    assert len({study.study_uid for study in studies}) == len({study.report_id for study in studies}) == 60
    assert all(study.study_uid.startswith("2.25.") and len(study.study_uid) <= 64 for study in studies)
    patients: dict[str, list] = {}
    for study in studies:
        patients.setdefault(study.patient_id, []).append(study)
    assert {len(one) for one in patients.values()} == {1, 2}
    assert all(len({(s.sex, s.age, s.patient_name) for s in one}) == 1 for one in patients.values())


def test_only_upright_studies_have_a_lateral_image() -> None:
    studies = list(generate(40, 2, options=StudyOptions(size=64, lateral=1.0)))
    views = {tuple(image.view for image in study.images) for study in studies}
    assert views == {("PA", "LL"), ("AP",)}
    for study in studies:
        assert len(set(study.sop_uids)) == len(study.images)
        assert {image.style for image in study.images} == {study.images[0].style}
    assert all(len(study.images) == 1 for study in generate(20, 2, size=64))


def test_categories_restrict_what_is_drawn_and_known() -> None:
    options = StudyOptions(size=64, categories=BASIC_CATEGORIES, prevalence=0.36)
    shares = dict.fromkeys(BASIC_CATEGORIES, 0)
    for study in generate(150, 1, options=options):
        assert set(study.study_truth) == set(BASIC_CATEGORIES)
        for category in {lesion.category for lesion in study.lesions}:
            shares[category] += 1
    assert all(30 < count < 80 for count in shares.values()), shares


def test_leaving_a_category_out_changes_no_other() -> None:
    for index in range(30):
        all_of_them = sample_study(4, index, bedside=False)
        few = sample_study(4, index, bedside=False, categories=("nodule", "scoliosis"))
        assert few == tuple(one for one in all_of_them if one.category in ("nodule", "scoliosis"))


def test_prevalence_and_independence_of_sides() -> None:
    truths = [study_truth(sample_lesions(np.random.default_rng([4, index]))) for index in range(1500)]
    for category in BASIC_CATEGORIES:
        share = np.mean([truth[category].status == "present" for truth in truths])
        assert 0.30 < share < 0.42, category
    both = np.mean([truth["nodule"].laterality == Laterality.BILATERAL for truth in truths])
    assert 0.02 < both < 0.06


def test_nobody_has_lungs_too_large_and_too_small() -> None:
    for index in range(400):
        shown = {one.category for one in sample_study(1, index, bedside=True, prevalence=0.5)}
        assert not {"hypoinflation", "hyperinflation"} <= shown


def test_study_truth_sums_up_both_sides() -> None:
    lesions = (
        Lesion(category="consolidation", laterality=Laterality.LEFT, severity="mild", site="upper_lobe"),
        Lesion(category="consolidation", laterality=Laterality.RIGHT, severity="severe", site="lower_lobe"),
        Lesion(category="enteric_tube", position="stomach"),
    )
    truth = study_truth(lesions)
    assert set(truth) == set(CATEGORIES)
    assert truth["consolidation"].laterality == Laterality.BILATERAL
    assert truth["consolidation"].sites == ("lower_lobe", "upper_lobe") and truth["consolidation"].severity == "severe"
    assert truth["nodule"].status == "absent" and truth["nodule"].laterality is None
    assert truth["enteric_tube"].position == "stomach"
