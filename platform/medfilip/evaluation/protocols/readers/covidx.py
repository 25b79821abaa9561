"""COVIDx: lists with a line an image (patient, file, class, source), and folders of the same names."""

from __future__ import annotations

from typing import NamedTuple

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.protocols.folder import DataFolder
from medfilip.evaluation.protocols.listing import Listing
from medfilip.evaluation.protocols.protocol import Origin, Protocol
from medfilip.findings.labels import plain_label

_ROLES: tuple[tuple[str, Origin, str], ...] = (
    ("train", "train", "train"), ("validation", "validation", "val"), ("test", "test", "test"),
)  # fmt: skip


class Line(NamedTuple):
    """What a line says of an image."""

    patient: str
    file: str
    label: str


def read(folder: DataFolder, listing: Listing) -> None:
    """Fill a listing; see the module's text."""
    images = folder.images(lambda path: "/".join(path.split("/")[-2:]))
    for role, origin, below in _ROLES:
        for number, text in enumerate(folder.lines(role) or (), start=1):
            line = parse_line(text, listing.protocol)
            if line is None:
                raise MedfilipError(
                    ErrorCode.SCHEMA_MISMATCH,
                    f"Line {number} of the {role} list is not 'patient file class source'.",
                    fix="Give the list as COVIDx ships it.",
                )
            name = f"{below}/{line.file}"
            listing.add(name, line.patient, origin, images.get(name), present=[line.label])


def parse_line(text: str, protocol: Protocol) -> Line | None:
    """Take a line apart; ``None`` if it is none.

    Names of files may have spaces, and the lists of the first releases name no source.
    """
    words = text.split()
    ending = 1 if plain_label(words[-1]) in protocol.source_index else 2
    if len(words) < ending + 2:
        return None
    return Line(words[0], " ".join(words[1:-ending]), words[-ending])
