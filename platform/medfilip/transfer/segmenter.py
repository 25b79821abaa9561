"""Segmentation: the image tower as the encoder of a U-Net, whose decoder is made of MONAI's blocks.

The decoder goes from the coarsest feature map to the image's own size. It doubles the size at each level, by
interpolation, since neither the patches of every transformer nor every input divide evenly; where the tower has a map
of the size it reached, that is joined (Ronneberger et al., MICCAI 2015). A transformer, which has one size, is decoded
without joins but that of the image itself.

Legend of tensor names: N images, S side of the input, C channels, H and W sides of a map.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.model.encoders import ImageEncoder

_CHANNELS_A_GROUP = 8
_WIDEST = 256
_SMOOTH = 1.0  # pixels: an empty mask wants few of them, not exactly none


class Segmenter(nn.Module):
    """An image tower and a decoder with one logit a pixel.

    Parameters
    ----------
    tower
        Any image tower; its projection to the joint space is not used.
    image_size
        Side of the input.
    width
        Channels of the decoder at the image's own size; each halving of the size doubles them, up to 256.
    """

    def __init__(self, tower: ImageEncoder, image_size: int, width: int) -> None:
        super().__init__()
        self.tower = tower
        with torch.no_grad():
            maps = tower.eval().pyramid(torch.zeros(1, 1, image_size, image_size))
        skips = {one.shape[-1]: one.shape[1] for one in maps[:-1]}
        side, channels = maps[-1].shape[-1], maps[-1].shape[1]
        self.sides: list[int] = []
        blocks = []
        while side < image_size:
            finer = [size for size in skips if size > side]
            side = min([*finer, 2 * side, image_size])
            wanted = min(width * (image_size // side), _WIDEST)
            blocks.append(_block(channels + skips.get(side, 0), wanted))
            self.sides.append(side)
            channels = wanted
        self.blocks = nn.ModuleList(blocks)
        self.out = nn.Conv2d(channels, 1, kernel_size=1)
        for parameter in (*tower.norm.parameters(), *tower.project.parameters()):
            parameter.requires_grad = False  # they lead to the joint space, and get no gradient here

    def forward(self, pixels_N1SS: Tensor) -> Tensor:
        """Return the logits [N, 1, S, S]."""
        *skips, map_NCHW = self.tower.pyramid(pixels_N1SS)
        by_side = {one.shape[-1]: one for one in skips}
        for block, side in zip(self.blocks, self.sides, strict=True):
            map_NCHW = functional.interpolate(map_NCHW, size=(side, side), mode="bilinear", align_corners=False)
            if side in by_side:
                map_NCHW = torch.cat([map_NCHW, by_side[side]], dim=1)
            map_NCHW = block(map_NCHW)
        logits_N1SS: Tensor = self.out(map_NCHW)
        return logits_N1SS


def mask_loss(logits_N1SS: Tensor, mask_N1SS: Tensor, images: int) -> Tensor:
    """Return Dice loss plus binary cross entropy, summed over images and divided by ``images`` of the global batch."""
    target_N1SS = mask_N1SS.to(logits_N1SS.dtype)
    dice_N111 = monai("losses").DiceLoss(sigmoid=True, smooth_nr=_SMOOTH, smooth_dr=_SMOOTH, reduction="none")(
        logits_N1SS, target_N1SS
    )
    entropy_N1SS = functional.binary_cross_entropy_with_logits(logits_N1SS, target_N1SS, reduction="none")
    found: Tensor = (dice_N111.sum() + entropy_N1SS.mean(dim=(1, 2, 3)).sum()) / max(images, 1)
    return found


def monai(part: str) -> Any:
    """Import a part of MONAI, which takes seconds.

    Raises
    ------
    MedfilipError
        ``DEPENDENCY_MISSING`` if it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(f"monai.{part}")
    except ImportError as error:
        raise no_monai() from error


def no_monai() -> MedfilipError:
    """Return the error of segmentation without MONAI."""
    return MedfilipError(
        ErrorCode.DEPENDENCY_MISSING,
        "Segmentation needs the package 'monai'.",
        fix="Install it: pip install --no-deps 'monai>=1.5,<2'.",
    )


def _block(before: int, after: int) -> nn.Module:
    norm = ("group", {"num_groups": max(after // _CHANNELS_A_GROUP, 1)})
    block: nn.Module = monai("networks.blocks").UnetBasicBlock(
        2, before, after, kernel_size=3, stride=1, norm_name=norm
    )
    return block
