"""Example images with their heat maps, as small pictures that stand in the page itself.

They are pixels of the corpus: nobody's images are shown unless that is asked for, but phantoms are nobody's.

Legend of tensor names: S side of the input.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfilip.model.diagnoser import FloatArray

_SIDE = 224
_STRONGEST = 0.65  # opacity of a map's largest value: what is under it stays visible


@dataclass(frozen=True)
class Example:
    """One label of one image.

    Attributes
    ----------
    order
        Pseudo-random number that decides which examples are shown.
    hit
        Whether the map's largest value lies in a box of the label.
    picture
        PNG in base64: the image, and the image under its map with the boxes' outline.
    """

    label: str
    order: int
    hit: bool
    picture: str


def draw_example(
    pixels_1SS: FloatArray, map_SS: FloatArray, mask_SS: NDArray[np.bool_], *, label: str, order: int, hit: bool
) -> Example:
    """Draw an image beside itself under its map; ``mask_SS`` marks the boxes."""
    import matplotlib as mpl
    from PIL import Image

    grey_SS = pixels_1SS[0] - pixels_1SS[0].min()
    grey_SS = grey_SS / max(float(grey_SS.max()), 1e-12)
    strength_SS = np.clip(map_SS / max(float(map_SS.max()), 1e-12), 0, 1)[..., None]
    colour_SS3 = mpl.colormaps["inferno"](strength_SS[..., 0])[..., :3]
    opacity_SS1 = _STRONGEST * strength_SS
    under_SS3 = (1 - opacity_SS1) * grey_SS[..., None] + opacity_SS1 * colour_SS3
    under_SS3[_outline(mask_SS)] = (0.3, 0.9, 0.4)
    both = np.concatenate([np.repeat(grey_SS[..., None], 3, axis=2), under_SS3], axis=1)
    image = Image.fromarray((255 * both).round().astype(np.uint8)).resize((2 * _SIDE, _SIDE), Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return Example(label, order, hit, base64.b64encode(buffer.getvalue()).decode())


def choose(examples: Iterable[Example], count: int) -> tuple[Example, ...]:
    """Choose examples by their numbers, labels in turn, so that none is shown for how well it looks."""
    by_label: dict[str, list[Example]] = {}
    for item in sorted(examples, key=lambda item: (item.order, item.label)):
        by_label.setdefault(item.label, []).append(item)
    turns = range(max((len(items) for items in by_label.values()), default=0))
    in_turn = [by_label[label][turn] for turn in turns for label in sorted(by_label) if turn < len(by_label[label])]
    return tuple(in_turn[:count])


def _outline(mask_SS: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of a mask that border on others."""
    inner_SS = np.pad(mask_SS, 1)
    inner_SS = inner_SS[:-2, 1:-1] & inner_SS[2:, 1:-1] & inner_SS[1:-1, :-2] & inner_SS[1:-1, 2:]
    found: NDArray[np.bool_] = mask_SS & ~inner_SS
    return found
