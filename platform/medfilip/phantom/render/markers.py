"""Lead letters, printed words and collimation: what lies on the image and not in the patient."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from medfilip.phantom.render.field import Field
from medfilip.phantom.render.patient import Exposure

_FONT = {  # 5 by 7 pixels, a row of bits a line
    "A": "01110 10001 10001 11111 10001 10001 10001",
    "B": "11110 10001 10001 11110 10001 10001 11110",
    "E": "11111 10000 10000 11110 10000 10000 11111",
    "L": "10000 10000 10000 10000 10000 10000 11111",
    "O": "01110 10001 10001 10001 10001 10001 01110",
    "P": "11110 10001 10001 11110 10000 10000 10000",
    "R": "11110 10001 10001 11110 10100 10010 10001",
    "T": "11111 00100 00100 00100 00100 00100 00100",
    "1": "00100 01100 00100 00100 00100 00100 01110",
    "2": "01110 10001 00001 00110 01000 10000 11111",
    " ": "00000 00000 00000 00000 00000 00000 00000",
}


@lru_cache(maxsize=64)
def letters(word: str, height: int) -> NDArray[np.bool_]:
    """Render a word of the built-in font, ``height`` pixels high (at least 7)."""
    scale = max(height // 7, 1)
    glyphs = [np.array([[bit == "1" for bit in row] for row in _FONT[letter].split()]) for letter in word]
    spaced = [np.pad(glyph, ((0, 0), (0, 1))) for glyph in glyphs]
    return np.kron(np.concatenate(spaced, axis=1), np.ones((scale, scale), bool)).astype(np.bool_)


def add_markers(density: Field, exposure: Exposure, letter: str, rng: np.random.Generator) -> None:
    """Lay the side marker, and what the unit prints below it, on the attenuation, in place."""
    size = density.shape[0]
    draws = rng.random(6)
    height = max(int(size * (0.034 + 0.02 * draws[0])), 7)
    mark = letters(letter, height)
    right_of_image = letter == "L"
    row = int(size * (0.035 + 0.05 * draws[1]))
    column = int(size * (0.90 + 0.035 * draws[2])) if right_of_image else int(size * (0.03 + 0.035 * draws[2]))
    if draws[3] < 0.15:
        mark = mark[:, ::-1]  # laid on the wrong way round
    _stamp(density, mark, row, column, 16.0)
    if exposure.style.annotation:
        word = letters(exposure.style.annotation, max(int(size * 0.02), 7))
        at = min(column, size - word.shape[1] - 3) if right_of_image else column
        _stamp(density, word, row + mark.shape[0] + 4, at, 12.0)


def _stamp(density: Field, mark: NDArray[np.bool_], row: int, column: int, amount: float) -> None:
    part = density[row : row + mark.shape[0], column : column + mark.shape[1]]
    part += np.float32(amount) * mark[: part.shape[0], : part.shape[1]]


def collimate(image: NDArray[np.uint16], exposure: Exposure, rng: np.random.Generator) -> None:
    """Blacken what the collimator kept from the beam, in place: a narrow border, on some images."""
    size = image.shape[0]
    draws = rng.random(5)
    if draws[0] >= exposure.style.border:
        return
    top, bottom, left, right = (int(size * 0.045 * float(one) * float(one)) for one in draws[1:])
    dark = int(4095 * 0.6 * exposure.style.toe)
    for part in (image[:top], image[size - bottom :], image[:, :left], image[:, size - right :]):
        part[...] = dark
