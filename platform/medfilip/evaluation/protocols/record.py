"""The record of what was evaluated, and the lock that a later run is held to.

No hash of a public file is invented here: what a protocol does not pin is recorded by the first run, and a lock file
makes every later run prove that it evaluates the same images, patients and labels.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.protocols.protocol import Counts
from medfilip.storage.location import Location


class Record(BaseModel):
    """What a data set held when it was evaluated.

    Attributes
    ----------
    protocol, protocol_fingerprint
        Which protocol, and which state of its file.
    release
        The documented release whose counts the data have; ``None`` if there is none.
    partial
        What is lacking of the documented data; empty for complete ones.
    files
        SHA-256 of every table and list that was read.
    pinned
        Which of these files the protocol knew the hash of.
    listed
        Counts of all that the tables list, by part of the data set.
    splits
        Counts of what is there, by split.
    views
        View → evaluated images: PA, AP or, where the data do not say, ``unknown``.
    left_out
        Reason → listed images that the protocol does not take.
    missing
        Split → images that are not on disk.
    shared_patients
        Patients that the data set has in several splits.
    patients_known
        Whether the data say who a patient is; else disjoint patients mean disjoint images.
    contradictory
        Images that are labelled both as normal and with a finding; the finding counts.
    ids_sha256, truth_sha256
        Hash of the ids and patients of each evaluated split, in order of ids, and of their labels.
    split_fingerprint
        Short name of the last two.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    protocol: str
    protocol_fingerprint: str
    release: str | None
    partial: tuple[str, ...]
    files: dict[str, str]
    pinned: tuple[str, ...]
    listed: dict[str, Counts]
    splits: dict[str, Counts]
    views: dict[str, int]
    left_out: dict[str, int]
    missing: dict[str, int]
    shared_patients: int
    patients_known: bool
    contradictory: int
    ids_sha256: dict[str, str]
    truth_sha256: str
    split_fingerprint: str

    @property
    def completeness(self) -> str:
        """In one sentence: whether this is the documented data set."""
        if self.partial:
            return f"PARTIAL, not the documented data set: {'; '.join(self.partial)}"
        return f"complete, counts as documented for {self.release}" if self.release else "no documented counts"

    @property
    def pins(self) -> str:
        """In one sentence: which files were known by their hash."""
        others = [name for name in self.files if name not in self.pinned]
        known = f"pinned: {', '.join(self.pinned)}; " if self.pinned else ""
        return f"{known}not pinned: {', '.join(others)}" if others else known.removesuffix("; ")


def check_fingerprint(record: Record, expected: str) -> None:
    """Hold a record to a split fingerprint of an earlier run.

    Raises
    ------
    MedfilipError
        ``SPLIT_MISMATCH``.
    """
    if record.split_fingerprint != expected:
        raise MedfilipError(
            ErrorCode.SPLIT_MISMATCH,
            f"The split has the fingerprint {record.split_fingerprint}, not {expected}.",
            fix="Give the data of the earlier run, or leave expected_split out.",
        )


def check_lock(record: Record, lock: Location) -> None:
    """Hold a record to the lock file of an earlier run, which is the record of that run.

    Raises
    ------
    MedfilipError
        ``SPLIT_MISMATCH`` naming what differs; ``CONFIG_FILE_UNREADABLE`` if the file is no lock.
    """
    try:
        earlier = Record.model_validate_json(lock.read_bytes())
    except ValidationError:
        raise MedfilipError(
            ErrorCode.CONFIG_FILE_UNREADABLE,
            f"The file {lock} is no lock of an evaluation protocol.",
            fix="Give lock=FILE a file that an earlier run wrote, or one that is not there yet.",
        ) from None
    differ = [f"the file {name}" for name in earlier.files if record.files.get(name) != earlier.files[name]]
    differ += [f"the ids of '{name}'" for name, known in earlier.ids_sha256.items() if record.ids_sha256[name] != known]
    differ += [] if record.truth_sha256 == earlier.truth_sha256 else ["the labels"]
    if record.protocol != earlier.protocol:
        differ = [f"the protocol ({earlier.protocol})"]
    if differ:
        raise MedfilipError(
            ErrorCode.SPLIT_MISMATCH,
            f"The data differ from those of the lock {lock} in {', '.join(differ)}.",
            fix="Give the data of the earlier run, or another lock=FILE.",
        )


def write_lock(record: Record, lock: Location) -> None:
    """Write the lock that later runs are held to."""
    lock.write_bytes((record.model_dump_json(indent=2) + "\n").encode())
