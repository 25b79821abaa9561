import numpy as np
import pytest

from medfilip.imaging.caricature import frontal, lateral
from medfilip.imaging.caricature_other import KINDS, other
from medfilip.imaging.thumbnail import equalise
from medfilip.imaging.view import likelihoods


def thumbnails(kind, count: int) -> list[np.ndarray]:
    # Another seed than the one from which the network learned.
    return [equalise(np.rint(image * 4095)) for image in kind(np.random.default_rng(77), count, 32)]


def test_likelihoods_are_one_distribution() -> None:
    found = likelihoods(thumbnails(frontal, 1)[0])
    assert found.chest.shape == (2, 4, 2) and found.chest.min() >= 0
    assert found.chest.sum() + found.none == pytest.approx(1)


def test_turning_or_negating_the_image_moves_the_answers_and_changes_none() -> None:
    image = thumbnails(frontal, 1)[0]
    plain, negative, turned = likelihoods(image), likelihoods(-image), likelihoods(np.rot90(image))
    assert np.allclose(negative.chest, plain.chest[::-1], atol=1e-6)
    assert np.allclose(turned.chest, np.roll(plain.chest, -1, axis=1), atol=1e-6)


@pytest.mark.parametrize(("kind", "view"), [(frontal, 0), (lateral, 1)])
def test_drawn_chests_are_recognised(kind, view: int) -> None:
    told = [np.unravel_index(np.argmax(likelihoods(t).chest), (2, 4, 2)) for t in thumbnails(kind, 100)]
    assert sum(where == (0, 0, view) for where in told) >= 85


def test_drawings_of_other_things_are_mostly_no_chest() -> None:
    found = [likelihoods(t).none for t in thumbnails(other, 100)]
    assert np.mean(np.array(found) > 0.5) >= 0.85


def test_torch_and_numpy_evaluate_the_same_network() -> None:
    import torch
    from torch import nn

    from medfilip.imaging.view import LAYERS, _weights
    from medfilip.imaging.view_fit import logits, network

    net = network()
    layers = [layer for layer in net if isinstance(layer, nn.Conv2d | nn.Linear)]
    for name, layer in zip(LAYERS, layers, strict=True):
        kernel, bias = _weights()[name]
        layer.load_state_dict({"weight": torch.from_numpy(kernel.copy()), "bias": torch.from_numpy(bias.copy())})
    images = thumbnails(frontal, 3) + thumbnails(other, 3)
    with torch.no_grad():
        expected = torch.softmax(logits(net, torch.from_numpy(np.stack(images))), dim=1).numpy()
    for image, row in zip(images, expected, strict=True):
        found = likelihoods(image)
        assert np.allclose([*found.chest.ravel(), found.none], row, atol=1e-4)


def test_the_weights_can_be_made_again_and_written() -> None:
    from medfilip.imaging.view_fit import table, train

    layers = table(train(seed=1, drawings=200, epochs=1))
    assert list(layers) == ["conv1", "conv2", "conv3", "dense1", "dense2"]
    for layer in layers.values():
        numbers = [int(number) for row in layer["kernel"] for number in row.split()]
        assert len(numbers) == np.prod(layer["shape"]) and max(map(abs, numbers)) == 127
    assert layers == table(train(seed=1, drawings=200, epochs=1))


@pytest.mark.parametrize("kind", [frontal, lateral, other])
def test_drawings_are_pictures_and_repeat(kind) -> None:
    first, again = (kind(np.random.default_rng(3), len(KINDS) + 1, 32) for _ in range(2))
    assert first.shape == (len(KINDS) + 1, 32, 32) and first.min() >= 0 and first.max() <= 1
    assert np.array_equal(first, again) and all(image.std() > 0 for image in first)
