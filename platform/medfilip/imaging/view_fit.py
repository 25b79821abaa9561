"""Make the weights of `medfilip.imaging.view` again from a seed: draw, train, write ``data/view.yaml``.

Usage: ``python -m medfilip.imaging.view_fit [--out FILE] [--epochs N] [--drawings N] [--seed N]``, about 7 minutes on
one core. Another version of torch or another processor may round differently; the weights that ship are those that
were measured, so measure again (``python -m tests.benchmarks.view_quality``) before new ones replace them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn

from medfilip.imaging.caricature import frontal, lateral
from medfilip.imaging.caricature_other import other
from medfilip.imaging.thumbnail import THUMBNAIL, equalise
from medfilip.imaging.view import LAYERS, TURNS

SHARES = ((frontal, 0.4, 0), (lateral, 0.27, 1), (other, 0.33, 4 * TURNS))
"""Kind of drawing, its share, and its class: an upright frontal, an upright lateral, "no chest" as the last of 17."""
_AT_ONCE = 500
_BATCH = 64
_RATE = 2e-3
_LEVELS = 127  # weights are integers from -127 to 127
_GREYS = 4095


def draw(seed: int, drawings: int) -> tuple[Tensor, Tensor]:
    """Draw ``[n, 32, 32]`` ranks and their classes ``[n]``."""
    rng = np.random.default_rng(seed)
    images, classes = [], []
    for kind, share, label in SHARES:
        count = round(share * drawings)
        for at in range(0, count, _AT_ONCE):
            drawn = np.rint(kind(rng, min(_AT_ONCE, count - at), THUMBNAIL) * _GREYS)
            images += [equalise(image) for image in drawn]
            classes += [label] * len(drawn)
    return torch.from_numpy(np.stack(images)), torch.tensor(classes)


def network() -> nn.Sequential:
    """Build the network that `medfilip.imaging.view` evaluates without torch."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Conv2d(16, 24, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(24 * (THUMBNAIL // 8) ** 2, 24),
        nn.ReLU(),
        nn.Linear(24, 2),
    )


def logits(net: nn.Module, images: Tensor) -> Tensor:
    """Return logits ``[n, 17]`` of images ``[n, 32, 32]``: polarity x turns x view, then "no chest", which is 0."""
    turned = torch.stack([torch.rot90(images, k, (1, 2)) for k in range(TURNS)], dim=1)
    asked = torch.cat([turned, -turned], dim=1).flatten(0, 1)
    answers = net(asked[:, None]).reshape(len(images), 4 * TURNS)
    return torch.cat([answers, answers.new_zeros(len(images), 1)], dim=1)


def train(seed: int, drawings: int, epochs: int) -> nn.Sequential:
    """Train on fresh drawings and return the network."""
    torch.manual_seed(seed)
    images, classes = draw(seed, drawings)
    net = network()
    steps = epochs * (len(images) // _BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), lr=_RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=steps + 1)
    order = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        shuffled = torch.randperm(len(images), generator=order)[: len(images) // _BATCH * _BATCH]
        total = 0.0
        for batch in shuffled.reshape(-1, _BATCH):
            found = logits(net, images[batch])
            loss = nn.functional.cross_entropy(found, classes[batch], label_smoothing=0.02)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            total += loss.item()
        sys.stderr.write(f"epoch {epoch}: loss {total / (len(images) // _BATCH):.4f}\n")
    return net


def table(net: nn.Sequential) -> dict[str, Any]:
    """Return the weights as plain numbers, rounded to 8 bits a weight."""
    trained = [layer for layer in net if isinstance(layer, nn.Conv2d | nn.Linear)]
    layers = {}
    for name, layer in zip(LAYERS, trained, strict=True):
        kernel = layer.weight.detach().numpy().astype(np.float64)
        scale = float(np.abs(kernel).max()) / _LEVELS
        whole = np.rint(kernel / scale).astype(int).reshape(len(kernel), -1)
        assert layer.bias is not None
        layers[name] = {
            "shape": list(kernel.shape),
            "scale": round(scale, 9),
            "bias": [round(value, 6) for value in layer.bias.tolist()],
            "kernel": [" ".join(map(str, row)) for row in whole],
        }
    return layers


def main() -> None:
    """Draw, train and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "data" / "view.yaml")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drawings", type=int, default=70_000)
    parser.add_argument("--epochs", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    net = train(given.seed, given.drawings, given.epochs)
    content = {
        "made_by": f"medfilip.imaging.view_fit --seed {given.seed} --drawings {given.drawings} --epochs {given.epochs}",
        "learned_from": "synthetic drawings only (medfilip.imaging.caricature)",
        "layers": table(net),
    }
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=10_000)
    given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
