"""How a chest lies in an image: from the front or the side, turned, as a negative, or not there at all.

A small convolutional network scores one question: does this thumbnail show an upright chest from the front, or from
the side? It is asked eight times, for the image turned by four quarter turns, each as it is and as a negative, and
one distribution over the 16 answers and "no chest" decides everything jointly: an inverted image is one whose
negative makes the better chest. Turning and negating are exact operations on ranks (`medfilip.imaging.thumbnail`), so
the network can't know an inverted or turned image worse than an upright one.

The weights (14 thousand integers in ``data/view.yaml``) were learned from the drawings of
`medfilip.imaging.caricature`, never from patients; `medfilip.imaging.view_fit` makes them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.float32]
LAYERS = ("conv1", "conv2", "conv3", "dense1", "dense2")
TURNS = 4


@dataclass(frozen=True, eq=False)
class Likelihoods:
    """One distribution over how the chest lies.

    Attributes
    ----------
    chest
        ``float64`` ``[2, 4, 2]``: polarity (as it is, negative) x quarter turns *counter-clockwise* that set the image
        upright x view (frontal, lateral).
    none
        Probability that there is no chest; it and ``chest`` sum to 1.
    """

    chest: NDArray[np.float64]
    none: float


def likelihoods(thumbnail: Array) -> Likelihoods:
    """Ask the network about the eight ways in which the image may have to be turned and negated.

    Parameters
    ----------
    thumbnail
        Ranks ``[32, 32]`` of `medfilip.imaging.thumbnail.ranks`.
    """
    turned = np.stack([np.rot90(thumbnail, k) for k in range(TURNS)])
    logits = _network(np.concatenate([turned, -turned])).astype(np.float64)
    highest = max(float(logits.max()), 0.0)  # "no chest" has the logit 0
    weights, none = np.exp(logits - highest), float(np.exp(-highest))
    total = float(weights.sum()) + none
    return Likelihoods((weights / total).reshape(2, TURNS, 2), none / total)


def _network(images: Array) -> Array:
    """Score ``[n, 32, 32]``: logits ``[n, 2]`` of an upright frontal and an upright lateral chest."""
    weights = _weights()
    hidden = _convolve(images[..., None], *weights["conv1"], stride=2)
    hidden = _halve(_convolve(hidden, *weights["conv2"]))
    hidden = _halve(_convolve(hidden, *weights["conv3"]))
    flat = hidden.transpose(0, 3, 1, 2).reshape(len(images), -1)  # the order of channels in which it was trained
    kernel, bias = weights["dense1"]
    kernel2, bias2 = weights["dense2"]
    logits: Array = np.maximum(flat @ kernel.T + bias, 0) @ kernel2.T + bias2
    return logits


def _convolve(images: Array, kernel: Array, bias: Array, stride: int = 1) -> Array:
    """Convolve ``[n, h, w, c]`` with ``[out, c, k, k]``, zero padding, and keep what is positive."""
    out, size = int(kernel.shape[0]), int(kernel.shape[-1])
    reach = size // 2
    padded = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    across: Any = (1, 2)  # numpy's stubs know one axis only
    windows = sliding_window_view(padded, (size, size), axis=across)[:, ::stride, ::stride]  # [n, h, w, c, k, k]
    flat = windows.reshape(-1, kernel[0].size) @ kernel.reshape(out, -1).T + bias
    positive: Array = np.maximum(flat, 0).reshape(*windows.shape[:3], out)
    return positive


def _halve(images: Array) -> Array:
    """Means of 2 x 2 pixels of ``[n, h, w, c]``."""
    n, height, width, channels = images.shape
    means: Array = images.reshape(n, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
    return means


@cache
def _weights() -> dict[str, tuple[Array, Array]]:
    """Kernel and bias of each layer: integers of 8 bits times one scale a layer, biases as decimals."""
    text = (files("medfilip.imaging") / "data" / "view.yaml").read_text(encoding="utf-8")
    layers: dict[str, Any] = yaml.safe_load(text)["layers"]
    weights = {}
    for name in LAYERS:
        layer = layers[name]
        rows = np.array([row.split() for row in layer["kernel"]], dtype=np.float32) * np.float32(layer["scale"])
        weights[name] = rows.reshape(layer["shape"]), np.array(layer["bias"], dtype=np.float32)
    return weights
