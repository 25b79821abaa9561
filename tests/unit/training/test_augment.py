"""Augmentation: small, repeatable for each image, in the range of its input, and flips that take the findings along."""

from __future__ import annotations

import torch

from medfilip.training.augment import augment as augment_by_tensors
from medfilip.training.augment import uniform
from medfilip.training.settings import AugmentSettings

SETTINGS = AugmentSettings(blur=1.0)
NOTHING = AugmentSettings(shift=0, scale=0, rotation=0, gamma=0, noise=0, blur=0)


def augment(given, seeds, chosen, flipped=None):
    seeds = torch.tensor([seed % 2**63 for seed in seeds], dtype=torch.int64)
    return augment_by_tensors(given, seeds, chosen, None if flipped is None else torch.tensor(flipped))


def images(count: int, side: int) -> torch.Tensor:
    """Smooth model input, between black (-2) and white (2)."""
    small = torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(0)) * 4 - 2
    return torch.nn.functional.interpolate(small, side, mode="bilinear", align_corners=True)


def test_each_image_depends_on_its_own_seed_only():
    given = images(3, 24)
    together = augment(given, [5, 6, 2**63 + 7], SETTINGS, [False, True, False])
    torch.testing.assert_close(augment(given[1:2], [6], SETTINGS, [True]), together[1:2])
    assert not torch.equal(augment(given[1:2], [7], SETTINGS, [True]), together[1:2])


def test_disabled_and_empty_leave_everything_as_it_is():
    given = torch.rand(2, 1, 8, 8)
    assert augment(given, [1, 2], AugmentSettings(enabled=False)) is given
    assert len(augment(given[:0], [], SETTINGS)) == 0


def test_what_is_on_the_left_stays_on_the_left():
    given = torch.full((50, 1, 32, 32), -2.0)
    given[:, :, 10:20, 4:10] = 2
    changed = augment(given, range(50), AugmentSettings(noise=0)) + 2
    assert (changed[..., :16].sum(dim=(1, 2, 3)) > changed[..., 16:].sum(dim=(1, 2, 3)) * 5).all()


def test_without_any_change_allowed_nothing_changes():
    given = images(2, 16)
    torch.testing.assert_close(augment(given, [1, 2], NOTHING), given, rtol=1e-4, atol=1e-4)


def test_a_flip_mirrors_the_images_it_is_asked_for():
    given = images(3, 16)
    changed = augment(given, [1, 2, 3], NOTHING, [True, False, True])
    torch.testing.assert_close(changed[1], given[1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(changed[[0, 2]], given[[0, 2]].flip(-1), rtol=1e-4, atol=1e-4)


def test_the_range_of_grey_values_stays_that_of_the_input():
    changed = augment(images(20, 32), range(20), AugmentSettings(noise=0, blur=2))
    assert changed.min() >= -2 - 1e-4 and changed.max() <= 2 + 1e-4 and changed.std() > 0.3


def test_blur_takes_detail_from_half_of_the_images():
    given = torch.randn(40, 1, 16, 16, generator=torch.Generator().manual_seed(1)).clamp(-2, 2)
    blurred = augment(given, range(40), AugmentSettings(shift=0, scale=0, rotation=0, gamma=0, noise=0, blur=2))
    softer = blurred.std(dim=(1, 2, 3)) < 0.9 * given.std(dim=(1, 2, 3))
    assert 8 < int(softer.sum()) < 32


def test_uniform_numbers_are_uniform_and_unrelated_between_streams_and_seeds():
    many = uniform(torch.arange(2000)[:, None], torch.arange(20))
    assert many.min() >= 0 and many.max() < 1
    assert abs(many.mean().item() - 0.5) < 0.005 and abs(many.var().item() - 1 / 12) < 0.002
    for columns in (many.T, many):
        related = torch.corrcoef(columns[:20])
        assert (related - torch.eye(20)).abs().max() < 4 / columns.shape[1] ** 0.5
    assert torch.equal(uniform(torch.tensor([7]), torch.tensor([3])), many[7:8, 3])


def test_noise_has_the_strength_that_is_asked_for():
    grey = torch.zeros(4, 1, 64, 64)
    noise = augment(grey, range(4), AugmentSettings(shift=0, scale=0, rotation=0, gamma=0, noise=0.02)) / 4
    assert abs(noise.std().item() - 0.02) < 5e-4 and abs(noise.mean().item()) < 5e-4
    assert not torch.equal(noise[0], noise[1])
