"""The checkpoint folder: complete, verified, without pickle, and safe against prepared names."""

from __future__ import annotations

import json

import pytest
import torch

from medfilip import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_bytes
from medfilip.model.calibration import Calibration, Platt
from medfilip.model.checkpoint import HASHES, REQUIRED, Versions, load_checkpoint, read_files, save_checkpoint

VERSIONS = Versions(ontology="o" * 16, knowledge="k" * 16, synthetic=True)
SLOTS = {"mass": {"laterality": {"left": 3, "right": 9}, "site": {}}}


@pytest.fixture
def saved(model, tmp_path):
    curve = Platt(slope=1.5, intercept=0.5, positives=10, negatives=12)
    name = save_checkpoint(
        tmp_path / "checkpoint", model, VERSIONS, calibration=Calibration(categories={"mass": curve}),
        metrics={"loss": 0.25, "step": 7}, slots=SLOTS, extra={"note.json": b"{}"},
    )  # fmt: skip
    return tmp_path / "checkpoint", name


def test_what_was_saved_is_loaded(saved, model):
    folder, name = saved
    loaded = load_checkpoint(folder)
    assert (loaded.fingerprint, loaded.versions, loaded.metrics) == (name, VERSIONS, {"loss": 0.25, "step": 7})
    assert loaded.calibration.categories["mass"].slope == 1.5
    assert not loaded.model.training and loaded.slots == SLOTS
    pixels = torch.randn(2, 1, 32, 32)
    assert torch.equal(loaded.model.encode_image(pixels), model.encode_image(pixels))
    assert torch.equal(loaded.model.encode_text(["no mass"]), model.encode_text(["no mass"]))


def test_the_fingerprint_follows_weights_only(saved, model, tmp_path):
    _, name = saved
    assert save_checkpoint(tmp_path / "b", model, VERSIONS, metrics={"loss": 9}) == name
    with torch.no_grad():
        model.bias += 1
    assert save_checkpoint(tmp_path / "c", model, VERSIONS) != name


def test_the_card_says_synthetic_only_when_it_is(saved, model, tmp_path):
    assert "synthetic training data" in (saved[0] / "README.md").read_text()
    save_checkpoint(tmp_path / "b", model, Versions("o", "k", synthetic=False))
    assert "synthetic" not in (tmp_path / "b" / "README.md").read_text()


@pytest.mark.parametrize("file", [*REQUIRED, "README.md", "note.json", HASHES])
def test_a_missing_file_is_named(saved, file):
    (saved[0] / file).unlink()
    refused(saved[0], file)


@pytest.mark.parametrize("file", [*REQUIRED, "README.md"])
def test_a_changed_file_is_named(saved, file):
    data = bytearray((saved[0] / file).read_bytes())
    data[-2] ^= 1
    (saved[0] / file).write_bytes(bytes(data))
    refused(saved[0], file)


@pytest.mark.parametrize("file", [*REQUIRED])
def test_a_malformed_file_with_a_fitting_hash_is_named(saved, file):
    folder = saved[0]
    (folder / file).write_bytes(b"[1, 2")
    hashes = json.loads((folder / HASHES).read_bytes())
    (folder / HASHES).write_text(json.dumps({**hashes, file: sha256_bytes(b"[1, 2")}))
    refused(folder, file)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", ""])
def test_a_listed_name_cannot_leave_the_folder(saved, name):
    folder = saved[0]
    (folder.parent / "secret").write_bytes(b"x")
    hashes = json.loads((folder / HASHES).read_bytes())
    (folder / HASHES).write_text(json.dumps({**hashes, name: sha256_bytes(b"x")}))
    refused(folder, HASHES)


def test_a_link_is_not_followed(saved):
    folder = saved[0]
    (folder / "note.json").rename(folder.parent / "elsewhere")
    (folder / "note.json").symlink_to(folder.parent / "elsewhere")
    refused(folder, "note.json")


def test_every_file_is_hashed(saved):
    assert set(read_files(saved[0])) == {path.name for path in saved[0].iterdir()} - {HASHES}


def refused(folder, file):
    with pytest.raises(MedfilipError, match=file) as caught:
        load_checkpoint(folder)
    assert caught.value.code == ErrorCode.CHECKPOINT_INVALID
