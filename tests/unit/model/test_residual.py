"""The backbone of the presets: shapes, its configuration, and images that do not see each other."""

from __future__ import annotations

import torch

from medfilip.model.residual import ResidualNet


def test_stages_halve_and_a_configuration_builds_it_again():
    net = ResidualNet([8, 16, 24], [0, 1])
    assert net(torch.randn(2, 1, 32, 40)).shape == (2, 24, 8, 10)
    again = ResidualNet.from_config(net.to_config())
    again.load_state_dict(net.state_dict())
    image = torch.randn(1, 1, 16, 16)
    assert torch.equal(again(image), net(image))


def test_an_image_does_not_depend_on_its_batch_or_on_the_mode():
    net, images = ResidualNet([8, 16], [1]), torch.randn(3, 1, 16, 16)
    together = net(images)
    torch.testing.assert_close(net.eval()(images[1:2]), together[1:2])


def test_faint_detail_is_seen_beside_large_contrast():
    torch.manual_seed(0)
    net = ResidualNet([8, 16], [1])
    image = torch.linspace(0, 10, 32).expand(1, 1, 32, 32).clone()
    changed = image.clone()
    changed[..., 8, 4] += 0.05
    assert (net(changed) - net(image)).abs().max() > 1e-2
