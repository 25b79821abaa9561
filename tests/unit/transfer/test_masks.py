"""Masks lie where what they mark lies, through every step that images go through."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.preprocess import MODEL_MEAN, MODEL_STD, to_model, to_store
from medfilip.phantom.corpus import read_truth, write_corpus
from medfilip.phantom.layouts.corpus import write_layout
from medfilip.phantom.study import StudyOptions, generate
from medfilip.storage.location import Location
from medfilip.training.augment import augment, augment_masks
from medfilip.training.settings import AugmentSettings
from medfilip.transfer.masks import ModelMasks, PhantomMasks, ProtocolMasks, fitted, mask_to_model


@pytest.mark.parametrize("shape", [(96, 96), (100, 60), (61, 127), (30, 41)])
@pytest.mark.parametrize("store_size", [64, 256])
def test_a_mask_goes_through_the_geometry_of_its_image(shape, store_size):
    rng = np.random.default_rng(1)
    mask = np.zeros(shape, np.bool_)
    mask[shape[0] // 3 : 2 * shape[0] // 3, shape[1] // 4 : shape[1] // 2] = True
    mask |= rng.random(shape) < 0.05
    # An image that is white where the mask is: its own way to the model says where the mask must be.
    stored = to_store(mask * np.uint16(65535), store_size)
    grey = to_model(stored, 48)[0] * MODEL_STD + MODEL_MEAN
    found = mask_to_model(mask, stored.shape, 48)
    assert found.shape == (48, 48) and found.dtype == np.bool_
    np.testing.assert_array_equal(found, grey >= 0.5 - 1e-6)
    assert 0 < found.sum() < found.size


def test_a_rectangle_on_whole_pixels_is_exact():
    mask = np.zeros((128, 64), np.bool_)
    mask[32:64, 16:32] = True
    expected = np.zeros((32, 32), np.bool_)
    expected[8:16, 8 + 4 : 8 + 8] = True  # a quarter of the size, and 8 columns of padding on the left
    np.testing.assert_array_equal(mask_to_model(mask, (64, 32), 32), expected)


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(MedfilipError, match="128 x 128 pixels does not lie on an image stored with 64 x 32") as caught:
        mask_to_model(np.zeros((128, 128), np.bool_), (64, 32), 32)
    assert caught.value.code is ErrorCode.MASK_UNFIT
    row = {"source_height": 128, "source_width": 64, "quality": [], "source_transfer_syntax": "image/png"}
    assert fitted(np.zeros((128, 64), np.bool_), row)
    assert not fitted(np.zeros((64, 128), np.bool_), row)
    turned = {**row, "quality": ["rotated"]}
    assert not fitted(np.zeros((128, 64), np.bool_), turned)
    dicom = {**turned, "source_transfer_syntax": "1.2.840.10008.1.2.1"}
    assert fitted(np.zeros((128, 64), np.bool_), dicom), "a DICOM file only looks turned"


def test_augmentation_moves_masks_and_images_alike():
    settings = AugmentSettings(gamma=0, noise=0, shift=0.2, scale=0.2, rotation=20)
    mask = torch.zeros(6, 1, 64, 64, dtype=torch.bool)
    mask[:, :, 20:35, 25:50] = True
    seeds = torch.arange(6) * 7919
    image = (mask.float() - MODEL_MEAN) / MODEL_STD
    moved = augment(image, seeds, settings) * MODEL_STD + MODEL_MEAN
    found = augment_masks(mask, seeds, settings)
    assert torch.equal(found, moved >= 0.5)
    assert len({tuple(one.flatten().tolist()) for one in found}) == 6, "each by its own seed"
    assert torch.equal(augment_masks(mask, seeds, AugmentSettings(enabled=False)), mask)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    options = StudyOptions(size=64, categories=("pneumothorax", "pleural_effusion"), prevalence=0.5, lateral=0.5)
    write_corpus(folder, 12, 3, options=options, masks=True)
    return folder


def test_phantom_masks_are_what_was_drawn(corpus):
    truth = {item.report_id: item for item in read_truth(corpus)}
    source = PhantomMasks(corpus, {f"i-{report}": (report, "frontal") for report in truth})
    present = 0
    for report, item in truth.items():
        mask = source.get(f"i-{report}", "pneumothorax")
        assert mask is not None and mask.shape == (64, 64)
        boxes = [box for key, box in item.boxes.items() if key.split("/")[0] == "pneumothorax"]
        assert mask.any() == bool(boxes)
        if boxes:
            present += 1
            rows, columns = np.nonzero(mask)
            assert (rows.min(), columns.min()) == (min(box[0] for box in boxes), min(box[1] for box in boxes))
            assert (rows.max() + 1, columns.max() + 1) == (max(box[2] for box in boxes), max(box[3] for box in boxes))
    assert 0 < present < len(truth)


def test_lateral_images_have_masks_of_their_own(corpus):
    truth = [
        item for item in read_truth(corpus) if any(key.startswith("pleural_effusion") for key in item.lateral_boxes)
    ]
    assert truth
    source = PhantomMasks(corpus, {"f": (truth[0].report_id, "frontal"), "l": (truth[0].report_id, "lateral")})
    frontal, lateral = source.get("f", "pleural_effusion"), source.get("l", "pleural_effusion")
    assert frontal is not None and lateral is not None and (frontal != lateral).any()


def test_what_is_not_known_is_none_and_a_corpus_without_masks_is_told(corpus, tmp_path):
    source = PhantomMasks(corpus, {"gone": ("PH9999999", "frontal")})
    assert source.get("other", "pneumothorax") is None
    assert source.get("gone", "pneumothorax") is None
    with pytest.raises(MedfilipError, match="no folder 'masks'") as caught:
        PhantomMasks(tmp_path, {})
    assert "masks=true" in caught.value.fix


def test_masks_of_a_table_are_kept_as_bits_and_stay_the_same(corpus):
    reports = [item.report_id for item in read_truth(corpus)]
    studies = {f"s{at}": report for at, report in enumerate(reports)}
    listed = pa.table(
        {
            "image_id": [f"i{at}" for at in range(12)], "study_id": list(studies), "view": ["frontal"] * 12,
            "height": [48] * 12, "width": [48] * 12,
        }
    )  # fmt: skip
    source = PhantomMasks.of(corpus, studies, listed)
    masks = ModelMasks(source, "pneumothorax", listed, 32)
    masks._room = 2
    for _ in range(2):
        for at in range(12):
            expected = mask_to_model(source.get(f"i{at}", "pneumothorax"), (48, 48), 32)
            np.testing.assert_array_equal(masks(at), expected)
    assert len(masks._kept) == 2


def test_masks_of_a_data_set_lie_on_its_images(tmp_path):
    options = StudyOptions(size=64, prevalence=0.7, categories=("pneumothorax",))
    write_layout(tmp_path, "siim_acr", 8, 3, options=options)
    masks = ProtocolMasks(Location.parse(tmp_path))
    for study in generate(8, 3, options=options):
        drawn = np.zeros((64, 64), np.bool_)
        for mask in study.images[0].masks.values():
            drawn |= mask
        np.testing.assert_array_equal(masks.get(study.sop_uid, "pneumothorax"), drawn)
    assert masks.get("1.2.3", "pneumothorax") is None and masks.get(study.sop_uid, "mass") is None
