"""Fine-tuned models come back from their folders as they were."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.preprocess import to_model
from medfilip.model.distributed import World
from medfilip.training.reporter import LocalReporter
from medfilip.transfer.cells import cut_of, tune
from medfilip.transfer.saved import SavedConfig, load, save
from tests.unit.transfer.world import cell, material


def saved(mode, checkpoint, folder, **changes):
    given = material(checkpoint, segment=mode == "segment")
    found = tune(cell(mode), given, World(), LocalReporter(folder / "work"), folder / "work")
    config = SavedConfig(labels=given.labelled.labels, model=found.config, synthetic=True)
    if mode == "segment":
        cut = cut_of(found.record)
        config = config.model_copy(update={"width": 8, "threshold": cut.threshold, "area": cut.area, **changes})
    save(folder / "model", found.model, config, found.record)
    return found, folder / "model"


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (96, 64), dtype=np.uint8)


def test_a_classifier_comes_back(tiny_checkpoint, tmp_path, image):
    found, folder = saved("full", tiny_checkpoint, tmp_path)
    model = load(folder)
    assert model.labels == ("pleural_effusion", "cardiomegaly", "nodule")
    with torch.no_grad():
        expected = found.model(torch.from_numpy(to_model(image, 32))[None]).sigmoid()[0]
    assert list(model.probabilities(image).values()) == pytest.approx(expected.tolist(), abs=1e-6)
    card = (folder / "README.md").read_text()
    assert "synthetic training data" in card and found.record["weights"][:16] in card
    with pytest.raises(MedfilipError, match="gives no mask"):
        model.mask(image)


def test_a_segmenter_marks_the_pixels_of_the_image(tiny_checkpoint, tmp_path, image):
    _, folder = saved("segment", tiny_checkpoint, tmp_path, threshold=0.0, area=0.0)
    mask = load(folder).mask(image)
    assert mask.shape == (96, 64) and mask.all(), "everything is above 0, the padding cut away"
    _, folder = saved("segment", tiny_checkpoint, tmp_path / "2", threshold=0.0, area=1.1)
    assert not load(folder).mask(image).any(), "an area below the least one is nothing"
    with pytest.raises(MedfilipError, match="gives no probabilities"):
        load(folder).probabilities(image)


def test_a_changed_file_is_refused(tiny_checkpoint, tmp_path):
    _, folder = saved("full", tiny_checkpoint, tmp_path)
    (folder / "config.json").write_bytes((folder / "config.json").read_bytes() + b" ")
    with pytest.raises(MedfilipError, match=r"config\.json does not match") as caught:
        load(folder)
    assert caught.value.code is ErrorCode.CHECKPOINT_INVALID
    with pytest.raises(MedfilipError) as caught:
        load(tiny_checkpoint)
    assert caught.value.code is ErrorCode.CHECKPOINT_INVALID and "finetune" in caught.value.fix
