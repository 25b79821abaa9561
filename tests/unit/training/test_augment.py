"""Augmentation: small, repeatable for each image, and never a flip."""

from __future__ import annotations

import torch

from medfilip.training.augment import augment
from medfilip.training.settings import AugmentSettings

SETTINGS = AugmentSettings()


def test_each_image_depends_on_its_own_seed_only():
    images = torch.rand(3, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    together = augment(images, [5, 6, 2**63 + 7], SETTINGS)
    torch.testing.assert_close(augment(images[1:2], [6], SETTINGS), together[1:2])
    assert not torch.equal(augment(images[1:2], [7], SETTINGS), together[1:2])


def test_disabled_and_empty_leave_everything_as_it_is():
    images = torch.rand(2, 1, 8, 8)
    assert augment(images, [1, 2], AugmentSettings(enabled=False)) is images
    assert len(augment(images[:0], [], SETTINGS)) == 0


def test_what_is_on_the_left_stays_on_the_left():
    images = torch.zeros(50, 1, 32, 32)
    images[:, :, 10:20, 4:10] = 1
    changed = augment(images, range(50), AugmentSettings(noise=0))
    assert (changed[..., :16].sum(dim=(1, 2, 3)) > changed[..., 16:].sum(dim=(1, 2, 3)) * 5).all()


def test_without_any_change_allowed_only_the_range_changes():
    images = torch.rand(2, 1, 16, 16) * 7 - 3
    nothing = AugmentSettings(shift=0, scale=0, rotation=0, gamma=0, noise=0)
    low, high = images.amin(dim=(1, 2, 3), keepdim=True), images.amax(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(augment(images, [1, 2], nothing), (images - low) / (high - low), rtol=1e-4, atol=1e-4)
