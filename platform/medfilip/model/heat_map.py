"""Where in an image the evidence for a label lies, from the model's own last feature map.

A label's margin is the cosine of the image with its positive prompts less that with its negated ones. Two ways to say
what each place of the feature map contributes to it:

``patch``
    Patch–text similarity: each place stands alone in its cell, goes through the projection of that cell and is
    compared with the label. Exact but for the normalisation over a cell's mean, and blind to the strongest response.
``gradient``
    Feature times gradient, summed over channels (HiResCAM; Draelos and Carin 2020): what the place contributes to the
    margin as the model computes it, through the mean of its cell and through the strongest response.

Values are not probabilities: they are comparable within an image and label, positive where a place speaks for it.

Legend of tensor names: N images, S side of the input, C channels, H and W sides of the feature map, X cells and the
strongest response, L labels, D joint dimension.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from medfilip.model.encoders import ImageEncoder

MapMethod = Literal["patch", "gradient"]


def heat_maps(encoder: ImageEncoder, pixels_N1SS: Tensor, label_LD: Tensor, method: MapMethod = "gradient") -> Tensor:
    """Return what each place of the feature map says for each label; [N, L, H, W].

    Parameters
    ----------
    encoder
        Image tower; it is neither changed nor are gradients left in its weights.
    pixels_N1SS
        Model input.
    label_LD
        Positive less negated embedding of each label.
    """
    with torch.no_grad():
        map_NCHW = encoder.features(pixels_N1SS)
    return _patch(encoder, map_NCHW, label_LD) if method == "patch" else _gradient(encoder, map_NCHW, label_LD)


def enlarge(map_NLHW: Tensor, size: int) -> Tensor:
    """Interpolate maps to the side of the input; [N, L, S, S]."""
    return functional.interpolate(map_NLHW, (size, size), mode="bilinear", align_corners=False)


@torch.no_grad()
def _patch(encoder: ImageEncoder, map_NCHW: Tensor, label_LD: Tensor) -> Tensor:
    grid, (height, width) = encoder.grid, map_NCHW.shape[2:]
    weight_LXC = (label_LD @ encoder.project.weight).view(len(label_LD), grid**2 + 1, -1)
    row_H = torch.arange(height, device=map_NCHW.device) * grid // height
    column_W = torch.arange(width, device=map_NCHW.device) * grid // width
    weight_LHWC = weight_LXC[:, row_H[:, None] * grid + column_W[None, :]]
    place_NHWC = encoder.norm(map_NCHW.permute(0, 2, 3, 1))
    return torch.einsum("nhwc,lhwc->nlhw", place_NHWC, weight_LHWC)


def _gradient(encoder: ImageEncoder, map_NCHW: Tensor, label_LD: Tensor) -> Tensor:
    with torch.enable_grad():
        map_NCHW = map_NCHW.detach().clone().requires_grad_()
        margin_NL = functional.normalize(encoder.pool(map_NCHW), dim=-1) @ label_LD.T
        found = []
        for at in range(len(label_LD)):
            # Images do not meet in the tower, so that the gradient of their sum is that of each.
            (gradient_NCHW,) = torch.autograd.grad(margin_NL[:, at].sum(), map_NCHW, retain_graph=True)
            found.append((gradient_NCHW * map_NCHW).sum(dim=1))
    return torch.stack(found, dim=1).detach() if found else map_NCHW.new_zeros(len(map_NCHW), 0, *map_NCHW.shape[2:])
