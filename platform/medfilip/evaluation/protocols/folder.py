"""The files of a data set as a user has them: unpacked anywhere below one folder, on a disk or in a bucket."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_bytes
from medfilip.evaluation.protocols.protocol import Protocol
from medfilip.imaging.image_tables import read_table
from medfilip.reports.listing import walk
from medfilip.storage.location import Location


class DataFolder:
    """What lies below the folder of a data set, listed once; every file that is read is hashed.

    Parameters
    ----------
    place
        The folder.
    protocol
        Says which files play which role.

    Attributes
    ----------
    sha256
        SHA-256 of the tables and lists read so far, by name.
    ambiguous
        Image files that have the key of another: which of them a table means, nobody can say.

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND`` if there is no such folder.
    """

    def __init__(self, place: Location, protocol: Protocol) -> None:
        if not place.is_dir():
            raise MedfilipError(
                ErrorCode.INPUT_NOT_FOUND, f"There is no folder at {place}.", fix="Check the setting 'data'."
            )
        self.place, self.protocol = place, protocol
        self.sha256: dict[str, str] = {}
        self.ambiguous = 0
        self._sizes = {file.name: file.size for file in walk(place)}

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self._sizes[name]

    def find(self, role: str) -> str | None:
        """Return the path below the folder of the file that plays a role; ``None`` for one that may be missing.

        The highest file of the first name that is there is taken.

        Raises
        ------
        MedfilipError
            ``INPUT_NOT_FOUND`` naming the file; ``CONFIG_INVALID`` if two of one name lie equally high.
        """
        wanted = self.protocol.layout.tables[role]
        for name in wanted:
            found = sorted((path.count("/"), path) for path in self._sizes if path.rsplit("/", 1)[-1] == name)
            if len(found) > 1 and found[0][0] == found[1][0]:
                raise MedfilipError(
                    ErrorCode.CONFIG_INVALID,
                    f"There are two files '{name}' in the data: {found[0][1]} and {found[1][1]}.",
                    fix="Give as 'data' the folder of one copy of the data set.",
                )
            if found:
                return found[0][1]
        if role in self.protocol.layout.optional:
            return None
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND,
            f"There is no {' or '.join(wanted)} below {self.place}.",
            fix=f"Unpack all of {self.protocol.title} there ({self.protocol.url}); its layout must stay as it is.",
        )

    def read(self, role: str) -> bytes | None:
        """Read a file whole and note its hash; ``None`` if it may be missing and is."""
        path = self.find(role)
        if path is None:
            return None
        data = (self.place / path).read_bytes()
        self.sha256[path.rsplit("/", 1)[-1]] = sha256_bytes(data)
        return data

    def table(self, role: str, columns: Sequence[str]) -> pa.Table | None:
        """Read a table as columns of text; ``None`` if it may be missing and is.

        Raises
        ------
        MedfilipError
            As `find`; ``COLUMN_MISSING`` if it lacks one of ``columns``; ``SHARD_CORRUPT``.
        """
        if self.read(role) is None:
            return None
        path = self.find(role)
        assert path is not None
        table = read_table(self.place / path)
        missing = [name for name in columns if name not in table.column_names]
        if missing:
            raise MedfilipError(
                ErrorCode.COLUMN_MISSING,
                f"{path} lacks the columns {', '.join(missing)}.",
                fix=f"Give the file as {self.protocol.title} ships it.",
            )
        return table

    @staticmethod
    def values(table: pa.Table, name: str) -> list[str | None]:
        """Return a column of a table, or nothing for every row if it lacks the column."""
        values: list[str | None] = table[name].to_pylist() if name in table.column_names else [None] * table.num_rows
        return values

    def needed(self, role: str, columns: Sequence[str]) -> pa.Table:
        """Read a table that must be there."""
        table = self.table(role, columns)
        assert table is not None, f"the role '{role}' is optional"
        return table

    def lines(self, role: str) -> list[str] | None:
        """Return the lines of a text file that hold something."""
        data = self.read(role)
        if data is None:
            return None
        return [line for line in map(str.strip, data.decode("utf-8-sig", errors="replace").splitlines()) if line]

    def images(self, key: Callable[[str], str | None] | None = None) -> ImageFiles:
        """Index the image files by a key of their path, which is the file's name unless ``key`` says otherwise."""
        layout = self.protocol.layout
        names = [
            path
            for path in self._sizes
            if path.lower().endswith(layout.images)
            and (not layout.folders or any(part in f"/{path}" for part in layout.folders))
        ]
        found = ImageFiles(names, key or (lambda path: path.rsplit("/", 1)[-1]))
        self.ambiguous += found.repeated
        return found


class ImageFiles:
    """Image files by key; of several with one key the first by path stands, and the others are ``repeated``."""

    def __init__(self, names: Sequence[str], key: Callable[[str], str | None]) -> None:
        self._by_key: dict[str, str] = {}
        self.repeated = 0
        for name in sorted(names):
            found = key(name)
            if found is not None and self._by_key.setdefault(found, name) != name:
                self.repeated += 1

    def get(self, key: str) -> str | None:
        """Return the path of an image below the data's folder; ``None`` if it is not there."""
        return self._by_key.get(key)

    @property
    def keys(self) -> list[str]:
        """Keys of all images, sorted."""
        return sorted(self._by_key)
