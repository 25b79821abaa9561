"""A decoder fits below every tower, joins what the tower has, and learns a mask."""

from __future__ import annotations

import pytest
import torch

from medfilip.model.config import ModelConfig
from medfilip.model.encoders import build_vision
from medfilip.transfer.segmenter import Segmenter, mask_loss
from tests.support.hub_models import VISION, save_vision


def tower_of(kind, tmp_path, size=32):
    vision = None if kind in ("tiny", "small") else save_vision(kind, tmp_path)
    preset = kind if vision is None else "tiny"
    return build_vision(ModelConfig(preset=preset, vision=vision, image_size=size), pretrained=True)[0]


@pytest.mark.parametrize("kind", ["tiny", "small", *VISION])
def test_every_tower_gives_a_logit_a_pixel(kind, tmp_path):
    torch.manual_seed(0)
    model = Segmenter(tower_of(kind, tmp_path), 32, 8)
    logits = model(torch.randn(2, 1, 32, 32))
    assert logits.shape == (2, 1, 32, 32)
    mask_loss(logits, torch.zeros(2, 1, 32, 32, dtype=torch.bool), 2).backward()
    lacking = [name for name, one in model.named_parameters() if one.requires_grad and one.grad is None]
    assert not lacking, "every parameter that is trained gets a gradient"
    assert any(one.grad is not None for one in model.tower.backbone.parameters())


@pytest.mark.parametrize(
    ("kind", "sides"), [("tiny", [32, 16, 8, 4]), ("resnet", [32, 8, 4]), ("vit", [32, 4]), ("dinov2", [32, 2])]
)
def test_maps_of_a_tower_from_fine_to_coarse(kind, sides, tmp_path):
    tower = tower_of(kind, tmp_path).eval()
    pixels = torch.randn(2, 1, 32, 32)
    maps = tower.pyramid(pixels)
    assert [one.shape[-1] for one in maps] == sides
    torch.testing.assert_close(maps[-1], tower.features(pixels))


def test_a_size_that_is_no_power_of_two(tmp_path):
    model = Segmenter(tower_of("dinov2", tmp_path, 56), 56, 8)
    assert model.sides == [8, 16, 32, 56]
    assert model(torch.randn(1, 1, 56, 56)).shape == (1, 1, 56, 56)


def test_the_loss_is_dice_and_cross_entropy_of_each_image():
    logits, mask = torch.randn(3, 1, 8, 8), torch.rand(3, 1, 8, 8) < 0.3
    mask[2] = False
    share, target = logits.sigmoid().flatten(1), mask.flatten(1).float()
    dice = 1 - (2 * (share * target).sum(1) + 1) / (share.sum(1) + target.sum(1) + 1)
    entropy = torch.nn.functional.binary_cross_entropy(share, target, reduction="none").mean(1)
    torch.testing.assert_close(mask_loss(logits, mask, 3), (dice + entropy).mean())
    halves = mask_loss(logits[:1], mask[:1], 3) + mask_loss(logits[1:], mask[1:], 3)
    torch.testing.assert_close(halves, mask_loss(logits, mask, 3))


def test_a_bright_square_is_learned(tmp_path):
    torch.manual_seed(0)
    model = Segmenter(tower_of("tiny", tmp_path), 32, 8)
    mask = torch.zeros(4, 1, 32, 32, dtype=torch.bool)
    for at in range(3):  # the last one has none
        mask[at, :, 4 * at : 4 * at + 10, 6 : 6 + 5 * (at + 1)] = True
    pixels = torch.randn(4, 1, 32, 32) * 0.2 + 2.0 * mask
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        loss = mask_loss(model(pixels), mask, 4)
        loss.backward()
        optimizer.step()
    marked = model(pixels) > 0
    overlap = 2 * (marked & mask).sum() / (marked.sum() + mask.sum())
    assert overlap > 0.8
