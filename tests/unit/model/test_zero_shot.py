"""`medfilip.load`: the endpoint's numbers for every way in which an image can be given, and clear refusals."""

from __future__ import annotations

import doctest
import io

import numpy as np
import pytest
import torch
from PIL import Image

import medfilip
from medfilip import ErrorCode, MedfilipError
from medfilip.imaging.intake import take_in
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.preprocess import DEFAULT_STORE_SIZE, png_encode
from medfilip.imaging.reader import read_image
from medfilip.model import diagnoser, zero_shot
from medfilip.model.question import Question
from medfilip.phantom.corpus import dicom_bytes
from medfilip.phantom.study import make_study
from serve.decoding import DecoderService
from serve.encoding import EncoderService
from serve.settings import ServeSettings
from tests.unit.model.test_locate import make_run

LABELS = ["pleural_effusion", "nodule", "tree in bud", "no small left pleural effusion"]


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    return medfilip.load(tiny_checkpoint)


@pytest.fixture(scope="module")
def endpoint(tiny_checkpoint):
    """Return bytes → findings, with the endpoint's own parts."""
    store_size = ServeSettings.model_fields["store_size"].default
    decoder = DecoderService(ImageLimits(), store_size=store_size)
    encoder = EncoderService(tiny_checkpoint)

    def answer(data):
        decoded = decoder.decode(data, 32)
        return encoder.answer(Question(tuple(LABELS)), encoder.embed([decoded.pixels]), [decoded]).answered.findings

    yield answer
    decoder.close()


@pytest.fixture(scope="module")
def pixels(phantom_dicom):
    return np.ascontiguousarray(read_image(phantom_dicom, ImageLimits()).pixels[::4, ::4])


def jpeg(pixels):
    buffer = io.BytesIO()
    grey = (pixels // 257 if pixels.dtype == np.uint16 else pixels).astype(np.uint8)
    Image.fromarray(grey).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["dicom", "png", "negative", "jpeg"])
def test_numbers_are_the_endpoints(loaded, endpoint, phantom_dicom, pixels, kind, tmp_path):
    negative = np.iinfo(pixels.dtype).max - pixels
    data = {"dicom": phantom_dicom, "png": png_encode(pixels), "negative": png_encode(negative), "jpeg": jpeg(pixels)}
    file = tmp_path / "image"
    file.write_bytes(data[kind])
    expected = endpoint(data[kind])
    for image in (file, str(file), data[kind]):
        found = loaded.diagnose(image, LABELS)
        assert found.findings == expected
    assert [item.calibration for item in found] == ["category", "category", "none", "none"]


def test_every_form_of_one_picture_gives_one_embedding(loaded, pixels):
    data = png_encode(pixels)
    forms = [data, pixels, Image.open(io.BytesIO(data)), take_in(data, ImageLimits()), read_image(data, ImageLimits())]
    rows = loaded.encode_image(forms)
    assert rows.shape == (5, 16) and rows.dtype == np.float32
    assert all(np.array_equal(loaded.preprocess(form), loaded.preprocess(data)) for form in forms)
    np.testing.assert_allclose(rows, np.tile(loaded.encode_image(pixels), (5, 1)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)


def test_a_negative_array_is_turned_like_a_file_once(loaded, pixels):
    negative = np.iinfo(pixels.dtype).max - pixels
    turned = take_in(png_encode(negative), ImageLimits())
    assert turned.set_upright
    assert np.array_equal(loaded.encode_image(negative), loaded.encode_image(turned))
    # read, but not yet judged
    assert np.array_equal(
        loaded.encode_image(read_image(png_encode(negative), ImageLimits())), loaded.encode_image(turned)
    )
    assert np.array_equal(loaded.encode_image(negative), loaded.encode_image(pixels))


def test_a_study_is_the_pool_of_its_images(loaded, pixels, monkeypatch):
    other = np.ascontiguousarray(pixels[:, ::-1])
    expected_model = loaded.diagnoser.model
    stacked = torch.from_numpy(np.stack([loaded.preprocess(pixels), loaded.preprocess(other)]))
    with torch.inference_mode():
        expected = expected_model.encode_image(stacked, torch.tensor([0, 0]), 1).numpy()[0]
    for at_once in (256, 2):
        monkeypatch.setattr(zero_shot, "_IMAGES_AT_ONCE", at_once)
        rows = loaded.encode_image([pixels, [pixels, other], other])
        np.testing.assert_allclose(rows[1], expected, atol=1e-6)
        np.testing.assert_allclose(rows[0], loaded.encode_image(pixels), atol=1e-6)
        np.testing.assert_allclose(rows[2], loaded.encode_image(other), atol=1e-6)
    assert len(loaded.diagnose([[pixels, other], pixels], "mass")) == 2


def test_texts(loaded, monkeypatch):
    monkeypatch.setattr(diagnoser, "_TEXT_BATCH", 1)
    rows = loaded.encode_text(["mass", "no mass"])
    assert (
        rows.shape == (2, 16) and loaded.encode_text([]).shape == (0, 16) and loaded.encode_image([]).shape == (0, 16)
    )
    np.testing.assert_allclose(loaded.encode_text("mass"), rows[0], atol=1e-6)


def test_it_says_what_it_is(loaded, pixels):
    assert "synthetic training data" in repr(loaded)
    told = str(loaded.diagnose(np.zeros((64, 64), np.uint8), LABELS))
    assert "synthetic training data" in told and "research use only" in told and "not_chest" in told
    found = loaded.diagnose(pixels, LABELS)
    assert found["nodule"] is found[1] and len(found) == 4 and len(found[:2]) == 2
    with pytest.raises(KeyError):
        found["mass"]


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (3, "request_invalid"),
        (None, "request_invalid"),
        ("/nowhere/a.dcm", "input_not_found"),
        ("/", "input_not_found"),
        ("ftp://host/a.dcm", "uri_not_allowed"),
        (b"no image", "image_unsupported"),
        (np.zeros((4, 4), np.float32), "image_unsupported"),
        (np.zeros((2, 4, 4), np.uint8), "image_unsupported"),
        (np.zeros((0, 4), np.uint8), "image_unsupported"),
        (Image.new("F", (8, 8)), "image_unsupported"),
        ([[]], "request_invalid"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_code(loaded, image, code):
    with pytest.raises(MedfilipError) as caught:
        loaded.encode_image(image)
    assert caught.value.code == code and caught.value.fix


def test_an_error_in_a_list_names_its_place(loaded, pixels):
    with pytest.raises(MedfilipError, match="Entry 1") as caught:
        loaded.diagnose([pixels, "/nowhere/Jane^Doe.dcm"], "mass")
    assert "Jane" not in str(caught.value)


@pytest.mark.parametrize("labels", [[], "", [""], ["x" * 301], 3, [b"mass"], b"mass"])
def test_labels_that_cannot_be_asked_for(loaded, pixels, labels):
    with pytest.raises(MedfilipError) as caught:
        loaded.diagnose(pixels, labels)
    assert caught.value.code == ErrorCode.REQUEST_INVALID


def test_without_labels_the_calibrated_categories_are_diagnosed(loaded, pixels):
    assert {item.label for item in loaded.diagnose(pixels)} == {"pleural_effusion", "nodule"}


def test_a_list_gives_what_its_entries_give(loaded, pixels):
    asked = {"attributes": 1, "heat_maps": "all", "described": {"star": ["ten spikes"]}}
    together = loaded.diagnose([pixels, [pixels, pixels[::-1]]], ["mass"], **asked)
    for entry, found in zip((pixels, [[pixels, pixels[::-1]]]), together, strict=True):
        alone = loaded.diagnose(entry, ["mass"], **asked)
        alone = alone[0] if isinstance(alone, list) else alone
        assert [item.label for item in found] == ["mass", "star"] and len(found.images) == len(alone.images)
        for one, other in zip(found, alone, strict=True):
            assert one.probability == pytest.approx(other.probability, abs=1e-6)
            assert one.heat_map.peak == pytest.approx(other.heat_map.peak, abs=1e-6)


def test_places_and_devices_that_are_not_there(tiny_checkpoint, tmp_path):
    for place, code in ((tmp_path, "input_not_found"), (3, "request_invalid"), ("http://x/y", "uri_not_allowed")):
        with pytest.raises(MedfilipError) as caught:
            medfilip.load(place)
        assert caught.value.code == code
    for device in ("cuda:99", "toaster"):
        with pytest.raises(MedfilipError, match=device) as caught:
            medfilip.load(tiny_checkpoint, device=device)
        assert caught.value.code == ErrorCode.CONFIG_INVALID


def test_a_run_and_a_folder_of_runs(tiny_checkpoint, loaded, tmp_path):
    run = make_run(tmp_path / "runs" / "pretrain-1" / "2", tiny_checkpoint, day=2).parent
    for place in (str(tiny_checkpoint), run, tmp_path / "runs"):
        assert medfilip.load(place).fingerprint == loaded.fingerprint


def test_a_checkpoint_in_a_bucket(tiny_checkpoint, s3_bucket, loaded):
    from medfilip.storage.location import Location

    for file in tiny_checkpoint.iterdir():
        (Location.parse(f"{s3_bucket}/of-load") / file.name).write_bytes(file.read_bytes())
    assert medfilip.load(f"{s3_bucket}/of-load").fingerprint == loaded.fingerprint


def test_the_example_in_the_documentation_runs(tiny_checkpoint, phantom_dicom):
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    globs = {"checkpoint": tiny_checkpoint, "image": phantom_dicom}
    (example,) = finder.find(zero_shot.ZeroShotModel, "ZeroShotModel", globs=globs)
    assert runner.run(example).failed == 0
    assert runner.tries >= 5


def test_several_images_of_different_patients_differ(loaded):
    rows = loaded.encode_image([dicom_bytes(make_study(3, number)) for number in range(2)])
    assert not np.array_equal(rows[0], rows[1])
    assert ServeSettings.model_fields["store_size"].default == DEFAULT_STORE_SIZE


def test_images_of_two_patients_are_not_one_study(loaded):
    first, second = (dicom_bytes(make_study(5, number)) for number in range(2))
    with pytest.raises(MedfilipError, match="Entry 1 of the list: The images are of different") as caught:
        loaded.diagnose([first, [first, second]], "mass")
    assert caught.value.code is ErrorCode.SOURCES_DIFFER
    with pytest.raises(MedfilipError) as caught:
        loaded.encode_image([[first, first]])
    assert caught.value.code is ErrorCode.IMAGE_DUPLICATE
    assert len(loaded.diagnose([first, second], "mass")) == 2
