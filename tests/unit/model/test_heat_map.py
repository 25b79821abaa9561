"""Heat maps are what they say: derivatives of the margin, and parts of the projection; and they change nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from medfilip.model.diagnoser import Diagnoser
from medfilip.model.heat_map import heat_maps


@pytest.fixture(scope="module")
def diagnoser(tiny_checkpoint):
    return Diagnoser.load(tiny_checkpoint)


def pixels(n=3, size=32):
    return torch.from_numpy(np.random.default_rng(0).normal(size=(n, 1, size, size)).astype(np.float32))


def test_the_gradient_map_is_the_derivative_of_the_margin(diagnoser):
    encoder = diagnoser.model.image
    label = functional.normalize(torch.randn(2, 16, generator=torch.Generator().manual_seed(1)), dim=-1).double()
    encoder = encoder.double()
    try:
        images = pixels().double()
        found = heat_maps(encoder, images, label)
        features = encoder.features(images).detach()

        def margin(scale, row, column):
            changed = features.clone()
            changed[:, :, row, column] *= 1 + scale
            return functional.normalize(encoder.pool(changed), dim=-1) @ label.T

        for row, column in ((0, 0), (1, 2), (3, 3)):
            step = 1e-5
            numeric = (margin(step, row, column) - margin(-step, row, column)) / (2 * step)
            torch.testing.assert_close(found[:, :, row, column], numeric, rtol=1e-4, atol=1e-7)
    finally:
        encoder.float()


def test_patches_of_even_cells_add_up_to_the_projection(diagnoser, monkeypatch):
    encoder = diagnoser.model.image
    channels = encoder.norm.normalized_shape[0]
    cells = torch.randn(2, channels, encoder.grid, encoder.grid, generator=torch.Generator().manual_seed(2))
    features = functional.interpolate(cells, scale_factor=2.0, mode="nearest")
    label = torch.randn(3, 16, generator=torch.Generator().manual_seed(3))
    monkeypatch.setattr(encoder, "features", lambda _: features)
    found = heat_maps(encoder, pixels(2), label, "patch")
    strongest = encoder.norm(features.flatten(2).amax(dim=2))
    weight = encoder.project.weight.view(16, encoder.grid**2 + 1, channels)[:, -1]
    expected = (encoder.pool(features) - encoder.project.bias - strongest @ weight.T) @ label.T
    torch.testing.assert_close(found.sum(dim=(2, 3)) / 4, expected, rtol=1e-4, atol=1e-4)


def test_maps_leave_the_model_as_it_was(diagnoser):
    before = {name: value.clone() for name, value in diagnoser.model.state_dict().items()}
    bank = diagnoser.encode_labels(["pleural_effusion", "mass"])
    found = diagnoser.heat_maps(pixels(5).numpy(), bank)
    assert found.shape == (5, 2, 32, 32) and np.isfinite(found).all() and found.std() > 0
    assert all(torch.equal(value, before[name]) for name, value in diagnoser.model.state_dict().items())
    assert all(weight.grad is None for weight in diagnoser.model.parameters()) and not diagnoser.model.training
    # an image's maps do not depend on what else is in the batch
    np.testing.assert_allclose(diagnoser.heat_maps(pixels(5).numpy()[2:3], bank), found[2:3], atol=1e-6)
    assert diagnoser.heat_maps(np.zeros((0, 1, 32, 32), np.float32), bank).shape == (0, 2, 32, 32)
