"""What a writer of a layout is given of a study, and the truth it leaves beside the files."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medfilip.imaging.preprocess import png_encode
from medfilip.phantom.study import PhantomStudy

Part = Literal["train", "validation", "test"]

_FIRST_PATIENT = 31
"""With these numbers small corpora too have a patient in each split of the hash that divides ChestX-ray14."""


class LayoutTruth(BaseModel):
    """One line of ``truth.jsonl``: what was drawn in an image, under the id that the data set's tables give it.

    ``part`` is the one that the data set's own files put the image in, ``None`` where it has none; ``left_out`` says
    why an evaluation does not take the image.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_id: str
    patient: str
    part: Part | None
    shown: tuple[str, ...]
    left_out: str | None = None


@dataclass(frozen=True)
class Item:
    """A study with its place in the data set.

    Attributes
    ----------
    study
        The study.
    patient
        Number of the patient, in the order of their first studies.
    visit
        Number of the study among the patient's, from 0.
    """

    study: PhantomStudy
    patient: int
    visit: int

    @property
    def part(self) -> Part:
        """Part of the patient: of each four one is for test and one for validation."""
        return ("test", "validation", "train", "train")[(self.patient - _FIRST_PATIENT) % 4]

    @property
    def shown(self) -> tuple[str, ...]:
        """Categories that the images show."""
        return tuple(name for name, truth in self.study.study_truth.items() if truth.status == "present")

    def eight_bit(self, number: int = 0) -> NDArray[np.uint8]:
        """Pixels of an image (0 frontal, 1 lateral) in 8 of their 12 bits."""
        return (self.study.images[number].pixels >> 4).astype(np.uint8)

    def sixteen_bit(self, number: int = 0) -> NDArray[np.uint16]:
        """Pixels of an image (0 frontal, 1 lateral) spread over 16 bits."""
        return self.study.images[number].pixels << np.uint16(4)


def items(studies: Iterable[PhantomStudy]) -> Iterator[Item]:
    """Give patients and their visits numbers."""
    numbers: dict[str, int] = {}
    visits: dict[str, int] = {}
    for study in studies:
        number = numbers.setdefault(study.patient_id, _FIRST_PATIENT + len(numbers))
        visit = visits.get(study.patient_id, 0)
        visits[study.patient_id] = visit + 1
        yield Item(study, number, visit)


def write_csv(file: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table; the line of names is written as it is, since some data sets have odd ones."""
    buffer = io.StringIO(newline="")
    buffer.write(",".join(header) + "\n")
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    _write(file, buffer.getvalue().encode())


def write_lines(file: Path, lines: Iterable[str]) -> None:
    """Write lines of text."""
    _write(file, "".join(f"{line}\n" for line in lines).encode())


def write_png(file: Path, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """Write a PNG file of 8 or 16 bits."""
    _write(file, png_encode(pixels))


def write_jpeg(file: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a JPEG file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
    _write(file, buffer.getvalue())


def write_file(file: Path, data: bytes) -> None:
    """Write a file and the folders that it lies in."""
    _write(file, data)


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
