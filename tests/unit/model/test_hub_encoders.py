"""Any Hugging Face encoder: it builds, learns, is saved, and loads without the folder it came from."""

from __future__ import annotations

import shutil

import pytest
import torch

from medfilip import ErrorCode, MedfilipError
from medfilip.model.checkpoint import Versions, load_checkpoint, save_checkpoint
from medfilip.model.config import ModelConfig
from medfilip.model.distributed import World
from medfilip.model.dual_encoder import DualEncoder
from medfilip.model.encoders import build_text, build_vision
from medfilip.model.tokenizer import Tokenizer
from medfilip.training.loop import build_model
from medfilip.training.step import Task, make_optimizer, train_step
from tests.support.hub_models import VISION, save_bert, save_roberta, save_vision
from tests.unit.training.synthetic import settings, train_data

TEXTS = ["no nodule", "left effusions mass mass nodule", "a word that nobody knows"]


@pytest.fixture(scope="module")
def data():
    made = train_data(8, 4)
    return made, Task.of(settings(), made.ontology)


def trained(config, data, *, micro_batch=0):
    """Return a model before and after one step, as state dictionaries, and the model."""
    chosen = settings(model=config, micro_batch=micro_batch, warmup=0.0)
    data, task = data
    model = build_model(chosen, data, World()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = data.train.batch(range(8), epoch=0, settings=chosen)
    optimizer = make_optimizer(model, chosen)
    loss, norm = train_step(model, batch, optimizer, task, chosen, progress=0.5, world=World())
    assert loss.isfinite() and norm.isfinite() and norm > 0
    missing = [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
    assert missing == []
    return before, model


def check_round_trip(model, tmp_path, *originals):
    model.eval()
    pixels = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        image, text = model.encode_image(pixels), model.encode_text(TEXTS)
    save_checkpoint(tmp_path / "checkpoint", model, Versions("o", "k", synthetic=True))
    for folder in originals:
        shutil.rmtree(folder)
    again = load_checkpoint(tmp_path / "checkpoint").model
    # Training on a CPU writes attention out; the last bits are those of the same kernel only.
    again.text.backbone.set_attn_implementation(model.text.backbone.config._attn_implementation)
    with torch.no_grad():
        assert torch.equal(again.encode_image(pixels), image) and torch.equal(again.encode_text(TEXTS), text)


@pytest.mark.parametrize("kind", sorted(VISION))
def test_a_vision_backbone_learns_and_travels(kind, data, tmp_path):
    folder = save_vision(kind, tmp_path / kind)
    config = ModelConfig(image_size=32, embed_dim=8, max_tokens=32, grid=2, vision=folder)
    before, model = trained(config, data)
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(name.startswith("image.backbone.") for name in changed)
    statistics = {name for name in before if "running_" in name or "num_batches" in name}
    assert bool(statistics) == (kind == "resnet") and not statistics & changed
    check_round_trip(model, tmp_path, folder)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_text_encoder_learns_and_travels(kind, data, tmp_path):
    folder = save_bert(tmp_path / kind) if kind == "bert" else save_roberta(tmp_path / kind)
    config = ModelConfig(image_size=32, embed_dim=8, max_tokens=32, grid=2, text=folder)
    before, model = trained(config, data)
    after = model.state_dict()
    assert any(name.startswith("text.backbone.") and not torch.equal(before[name], after[name]) for name in before)
    check_round_trip(model, tmp_path, folder)


def test_batches_in_parts_leave_the_statistics_of_a_resnet_alone(data, tmp_path):
    config = ModelConfig(
        image_size=32, embed_dim=8, max_tokens=32, grid=2, vision=save_vision("resnet", tmp_path / "r")
    )
    before, model = trained(config, data, micro_batch=3)
    after = model.train().state_dict()
    model.encode_image(torch.randn(4, 1, 32, 32) + 5)
    assert all(torch.equal(before[name], after[name]) for name in before if "running_" in name)
    assert all(value.isfinite().all() for value in after.values())


@pytest.mark.parametrize(("kind", "size", "side"), [
    ("vit", 32, 4), ("vit", 64, 8), ("dinov2", 32, 2), ("dinov2_registers", 32, 2), ("dinov2_registers", 56, 4),
    ("resnet", 64, 8), ("convnext", 32, 4),
])  # fmt: skip
def test_the_map_has_the_patches_of_the_image_and_nothing_else(kind, size, side, tmp_path):
    config = ModelConfig(image_size=size, embed_dim=8, grid=2, vision=save_vision(kind, tmp_path / kind))
    encoder, _ = build_vision(config, pretrained=True)
    image = torch.randn(1, 1, size, size)
    map_NCHW = encoder.eval().features(image)
    assert map_NCHW.shape == (1, 16, side, side)
    if kind in ("dinov2_registers", "vit"):
        standard = (image - image.mean()) / image.std(correction=0)
        hidden = encoder._hidden(standard)[:, -side * side :]
        torch.testing.assert_close(map_NCHW.flatten(2).transpose(1, 2), hidden, atol=1e-4, rtol=1e-4)
    assert encoder.patches(image) == (None if kind in ("resnet", "convnext") else side)


def test_positions_of_a_vit_are_interpolated_not_cut(tmp_path):
    folder = save_vision("vit", tmp_path / "vit")
    own, other = (
        build_vision(ModelConfig(image_size=size, vision=folder, grid=2), pretrained=True)[0].eval()
        for size in (48, 96)
    )
    # The same constant patches everywhere: what differs between places comes from the positions alone.
    flat = torch.zeros(1, 1, 48, 48)
    small, large = own.features(flat)[0], other.features(torch.zeros(1, 1, 96, 96))[0]
    pooled = torch.nn.functional.avg_pool2d(large, 2)
    assert large.shape == (16, 12, 12) and small.std(dim=(1, 2)).min() > 1e-4
    assert torch.corrcoef(torch.stack([small.flatten(), pooled.flatten()]))[0, 1] > 0.9


@pytest.mark.parametrize(("lowercase", "upper"), [(True, 5), (False, 6)])
def test_word_pieces_keep_their_case_and_are_not_padded_by_themselves(lowercase, upper, tmp_path):
    tokenizer = Tokenizer.of_pretrained(save_bert(tmp_path / "bert", lowercase=lowercase), 16)
    for read in (tokenizer, Tokenizer.from_json(tokenizer.to_json(), 16)):
        ids, mask = read.encode(["Nodule", "no masss nodule"])
        assert ids.tolist() == [[2, upper, 3, 0, 0, 0], [2, 8, 7, 11, 5, 3]]
        assert mask.tolist() == [[1, 1, 1, 0, 0, 0], [1] * 6]


def test_byte_level_tokens_are_padded_with_their_own_padding(tmp_path):
    tokenizer = Tokenizer.of_pretrained(save_roberta(tmp_path / "roberta"), 16)
    ids, mask = tokenizer.encode(["a", "massive mass in sight"])
    padding = ids.shape[1] - 3
    assert ids[0].tolist()[3:] == [1] * padding and mask[0].tolist() == [1, 1, 1] + [0] * padding
    assert ids[1, 0] == 0 and ids[1, -1] == 2 and mask[1].all() and 3 < ids.shape[1] <= 16


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_texts_longer_than_the_positions_are_refused_before_training(kind, tmp_path):
    folder = save_bert(tmp_path / kind) if kind == "bert" else save_roberta(tmp_path / kind)
    tokenizer = Tokenizer.of_pretrained(folder, 48)
    fits = DualEncoder(ModelConfig(image_size=32, max_tokens=48, text=folder), tokenizer)
    assert fits.encode_text(["no mass " * 60]).isfinite().all()
    with pytest.raises(MedfilipError, match="at most 48 tokens") as caught:
        build_text(ModelConfig(max_tokens=49, text=folder), tokenizer.size, pretrained=True)
    assert caught.value.code == ErrorCode.CONFIG_INVALID and "model.max_tokens=48" in caught.value.fix
