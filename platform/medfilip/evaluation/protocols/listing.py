"""What the tables of a data set say, image by image, before a split or a category is decided.

Legend of tensor names: N images, S labels of the data set (`Protocol.sources`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.protocols.protocol import Origin, Protocol
from medfilip.findings.labels import plain_label

PRESENT, ABSENT, UNCERTAIN, UNSAID = 1, 0, -1, -2
"""What a table says of a label: uncertain is stated, unsaid is not."""

_SHOWN = 5


class Row(NamedTuple):
    """An image as the tables list it.

    ``name`` is its path below the data's folder, ``None`` if it is not there; ``said`` are (position of the label,
    what is said of it); ``view`` is PA or AP where the data set tells.
    """

    image_id: str
    patient: str
    origin: Origin
    name: str | None
    said: tuple[tuple[int, int], ...]
    view: str | None = None


@dataclass
class Listing:
    """Rows of a data set in the making: filled by its reader, checked once at the end.

    Attributes
    ----------
    protocol
        Knows the labels.
    rows
        One for each image, in the order of the tables.
    left_out
        Reason → how many listed images are left out for it.
    lacks
        What is not as the data set ships it → how often; refused unless partial data are allowed.
    images, patients
        Origin → how many images, and which patients, the tables list there, left-out ones too.
    people
        Image id → sex and age of its patient, as the data set writes them; only where it says either.
    patients_known
        Whether the data say who the patient of an image is; else an image stands for a patient.
    """

    protocol: Protocol
    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    lacks: Counter[str] = field(default_factory=Counter)
    images: Counter[str] = field(default_factory=Counter)
    patients: dict[str, set[str]] = field(default_factory=dict)
    people: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    patients_known: bool = True
    _unknown: Counter[str] = field(default_factory=Counter)
    _seen: dict[str, Row] = field(default_factory=dict)
    _repeated: int = 0
    _contradictory: list[str] = field(default_factory=list)

    @property
    def repeated(self) -> int:
        """How many rows list an image again."""
        return self._repeated

    def add(
        self,
        image_id: str,
        patient: str,
        origin: Origin,
        name: str | None,
        *,
        present: Iterable[str] = (),
        absent: Iterable[str] = (),
        uncertain: Iterable[str] = (),
        view: str | None = None,
        sex: str | None = None,
        age: str | None = None,
    ) -> None:
        """Add an image with what is said of it; labels in any spelling (`plain_label`)."""
        if sex or age:
            self.people.setdefault(image_id, (sex, age))
        said: dict[int, int] = {}
        for labels, state in ((absent, ABSENT), (uncertain, UNCERTAIN), (present, PRESENT)):
            for label in labels:
                at = self.protocol.source_index.get(plain_label(label))
                if at is None:
                    self._unknown[label] += 1
                else:
                    said[at] = state
        row = Row(image_id, patient, origin, name, tuple(sorted(said.items())), view)
        earlier = self._seen.setdefault(image_id, row)
        if earlier is not row:
            self._repeated += 1
            if earlier != row:
                self._contradictory.append(image_id)
            return
        self._count(patient, origin)
        self.rows.append(row)

    def leave_out(self, reason: str, patient: str, origin: Origin) -> None:
        """Count a listed image that is not evaluated."""
        self.left_out[reason] += 1
        self._count(patient, origin)

    def _count(self, patient: str, origin: Origin) -> None:
        self.images[origin] += 1
        self.patients.setdefault(origin, set()).add(patient)

    def check(self, *, allow_partial: bool) -> None:
        """Refuse labels that the protocol does not know, and images that are listed twice.

        Raises
        ------
        MedfilipError
            ``LABEL_UNKNOWN``; ``IMAGE_DUPLICATE`` if an image is listed twice, equal rows only without
            ``allow_partial``; ``INPUT_EMPTY`` without any image.
        """
        if self._unknown:
            names = ", ".join(f"'{name}'" for name, _ in self._unknown.most_common(_SHOWN))
            more = f" and {len(self._unknown) - _SHOWN} more" if len(self._unknown) > _SHOWN else ""
            raise MedfilipError(
                ErrorCode.LABEL_UNKNOWN,
                f"The tables hold labels that the protocol '{self.protocol.id}' does not know: {names}{more}.",
                fix="Give the files as the data set ships them; another release needs a protocol of its own.",
            )
        if self._contradictory:
            raise MedfilipError(
                ErrorCode.IMAGE_DUPLICATE,
                f"{len(self._contradictory)} images are listed twice with different labels, patients or splits, "
                f"such as {_some(self._contradictory)}.",
                fix="Give the files as the data set ships them.",
            )
        if self._repeated and not allow_partial:
            raise MedfilipError(
                ErrorCode.IMAGE_DUPLICATE,
                f"{self._repeated} rows list an image again.",
                fix="Give the files as the data set ships them, or set allow_partial=true to count each once.",
            )
        if not self.rows:
            raise MedfilipError(
                ErrorCode.INPUT_EMPTY,
                "The tables list no image that the protocol takes.",
                fix="Check that the tables are complete.",
            )

    def said(self) -> NDArray[np.int8]:
        """Return what is said, [N, S]."""
        said_NS = np.full((len(self.rows), len(self.protocol.sources)), UNSAID, np.int8)
        for at, row in enumerate(self.rows):
            for label, state in row.said:
                said_NS[at, label] = state
        return said_NS


def _some(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:3])
