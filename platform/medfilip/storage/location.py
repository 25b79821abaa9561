"""A place that holds data: a local path or ``s3://bucket/key``, behind one small interface.

Reads and writes go through Arrow's file systems. What Arrow cannot say (create only if absent, replace only if
unchanged) goes through boto3's conditional writes on S3 and through ``O_EXCL`` + fsync + rename locally.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from medfilip.core.errors import ErrorCode, MedfilipError

ALLOWED_SCHEMES = ("file", "s3")
PREFIXES_VARIABLE = "MEDFILIP_ALLOWED_PREFIXES"
_TEMPORARY = ".tmp"
_PIECE = 8 << 20


@dataclass(frozen=True)
class Location:
    """A local path or an S3 key.

    Attributes
    ----------
    scheme
        ``"file"`` or ``"s3"``.
    path
        Absolute local path, or ``bucket/key`` on S3, without a trailing slash.
    """

    scheme: str
    path: str

    @classmethod
    def parse(cls, uri: str | Path) -> Location:
        """Parse ``/a/path``, ``a/path``, ``file:///a/path`` or ``s3://bucket/key``; other schemes are refused.

        Where ``MEDFILIP_ALLOWED_PREFIXES`` is set (comma-separated), a place outside all of them is refused too.
        """
        location = cls._parse(os.fspath(uri))
        allowed = [prefix for prefix in os.environ.get(PREFIXES_VARIABLE, "").split(",") if prefix.strip()]
        if allowed and not any(location._is_below(cls._parse(prefix.strip())) for prefix in allowed):
            raise MedfilipError(
                ErrorCode.URI_NOT_ALLOWED,
                f"{location} lies outside the places that {PREFIXES_VARIABLE} allows.",
                fix="Use a path below one of them, or ask whoever runs this installation.",
            )
        return location

    def _is_below(self, place: Location) -> bool:
        # Resolved: a link or '..' must not lead out of an allowed folder.
        mine, theirs = (os.path.realpath(item.path) if item.scheme == "file" else item.path for item in (self, place))
        return self.scheme == place.scheme and f"{mine}/".startswith(f"{theirs.rstrip('/')}/")

    @classmethod
    def _parse(cls, text: str) -> Location:
        if "://" not in text:
            return cls("file", str(Path(text).expanduser().absolute()))
        parts = urlsplit(text)
        if parts.scheme not in ALLOWED_SCHEMES:
            raise MedfilipError(
                ErrorCode.URI_NOT_ALLOWED,
                f"The scheme '{parts.scheme}' is not allowed.",
                fix=f"Use a local path or one of: {', '.join(scheme + '://' for scheme in ALLOWED_SCHEMES)}.",
            )
        if parts.scheme == "file":
            return cls("file", str(Path(parts.path).absolute()))
        path = f"{parts.netloc}{parts.path}".rstrip("/")
        if not parts.netloc or ".." in path.split("/") or parts.query or parts.fragment:
            raise MedfilipError(
                ErrorCode.URI_NOT_ALLOWED,
                "An s3:// location needs a bucket, and no '..', '?' or '#' in its key.",
                fix="Write s3://bucket/prefix.",
            )
        return cls("s3", path)

    def __str__(self) -> str:
        return self.path if self.scheme == "file" else f"s3://{self.path}"

    def __truediv__(self, name: str) -> Location:
        """Join a relative name; absolute names and ``..`` are refused, so that no name can leave its folder."""
        if name.startswith("/") or ".." in name.split("/") or not name:
            raise MedfilipError(
                ErrorCode.URI_NOT_ALLOWED,
                "A name inside a dataset must be relative and must not contain '..'.",
                fix="Use plain file names.",
            )
        return Location(self.scheme, f"{self.path}/{name}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rsplit("/", 1)[-1]

    @property
    def parent(self) -> Location:
        """The folder that holds this location."""
        return Location(self.scheme, self.path.rsplit("/", 1)[0])

    @property
    def filesystem(self) -> pafs.FileSystem:
        """The Arrow file system of this location."""
        return _filesystem(self.scheme)

    def exists(self) -> bool:
        """Whether a file or folder is there."""
        return bool(self.filesystem.get_file_info(self.path).type != pafs.FileType.NotFound)

    def is_dir(self) -> bool:
        """Whether a folder is there."""
        return bool(self.filesystem.get_file_info(self.path).type == pafs.FileType.Directory)

    def size(self) -> int:
        """Bytes of the file that is there."""
        info = self.filesystem.get_file_info(self.path)
        if info.type != pafs.FileType.File:
            raise MedfilipError(ErrorCode.INPUT_NOT_FOUND, f"There is no file at {self}.", fix="Check the path.")
        return int(info.size)

    def children(self, *, recursive: bool = False) -> list[Location]:
        """Files and folders below this folder, sorted by path; none if it does not exist.

        What a killed process left half-written is not among them.
        """
        selector = pafs.FileSelector(self.path, allow_not_found=True, recursive=recursive)
        found = (Location(self.scheme, info.path) for info in self.filesystem.get_file_info(selector))
        return sorted((at for at in found if not _is_temporary(at.name)), key=lambda at: at.path)

    def files(self) -> list[pafs.FileInfo]:
        """Files below this folder and its subfolders with their size and time of change, sorted by path."""
        selector = pafs.FileSelector(self.path, allow_not_found=True, recursive=True)
        found = [info for info in self.filesystem.get_file_info(selector) if info.type == pafs.FileType.File]
        return sorted(found, key=lambda info: info.path)

    def read_bytes(self) -> bytes:
        """Read the whole file."""
        try:
            with self.filesystem.open_input_file(self.path) as stream:
                return bytes(stream.read())
        except FileNotFoundError as error:
            raise MedfilipError(
                ErrorCode.INPUT_NOT_FOUND, f"There is no file at {self}.", fix="Check the path."
            ) from error

    def write_bytes(self, data: bytes) -> None:
        """Write the whole file at once: readers see the old content or the new, never a part."""
        if self.scheme == "s3":
            with self.filesystem.open_output_stream(self.path, compression=None) as stream:
                stream.write(data)
            return
        target = Path(self.path)
        temporary = _temporary_beside(target)
        _write_synced(temporary, data)
        temporary.replace(target)

    def read_file(self, target: Path) -> None:
        """Copy the file to a local one, in pieces."""
        with self.filesystem.open_input_stream(self.path, compression=None) as stream, target.open("wb") as copy:
            shutil.copyfileobj(stream, copy, _PIECE)

    def write_file(self, source: Path) -> None:
        """Copy a local file here, in pieces: readers see the old content or the new, never a part."""
        if self.scheme == "s3":
            target_stream = self.filesystem.open_output_stream(self.path, compression=None)
            with source.open("rb") as content, target_stream as stream:
                shutil.copyfileobj(content, stream, _PIECE)
            return
        target = Path(self.path)
        temporary = _temporary_beside(target)
        try:
            with source.open("rb") as content, temporary.open("xb") as copy:
                shutil.copyfileobj(content, copy, _PIECE)
                copy.flush()
                os.fsync(copy.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def sha256(self) -> str:
        """SHA-256 of the file in hex, read in pieces."""
        digest = hashlib.sha256()
        with self.filesystem.open_input_stream(self.path, compression=None) as stream:
            while piece := stream.read(_PIECE):
                digest.update(piece)
        return digest.hexdigest()

    def create(self, data: bytes) -> None:
        """Write the file only if nothing is there; a lost race is `ErrorCode.PUBLISH_RACE_LOST`."""
        if self.scheme == "s3":
            self._create_object(data)
            return
        target = Path(self.path)
        temporary = _temporary_beside(target)
        _write_synced(temporary, data)
        try:
            # A hard link fails if the target exists, and shows the complete file if it does not.
            os.link(temporary, target)
        except FileExistsError as error:
            raise _race_lost(self) from error
        finally:
            temporary.unlink()
        _sync_folder(target.parent)

    def _create_object(self, data: bytes) -> None:
        try:
            _s3_put(self.path, data, IfNoneMatch="*")
        except MedfilipError as error:
            # An answer that was lost on its way makes the client try again, and then it meets its own object.
            if error.code is not ErrorCode.PUBLISH_RACE_LOST or self.read_bytes() != data:
                raise

    def delete(self) -> None:
        """Delete the file or the folder with all it holds; nothing there is no error."""
        info = self.filesystem.get_file_info(self.path)
        if info.type == pafs.FileType.Directory:
            self.filesystem.delete_dir(self.path)
        elif info.type == pafs.FileType.File:
            self.filesystem.delete_file(self.path)

    def make_dir(self) -> None:
        """Create the folder and its parents (a no-op on S3, which has none)."""
        if self.scheme == "file":
            Path(self.path).mkdir(parents=True, exist_ok=True)


@lru_cache(maxsize=4)
def _filesystem(scheme: str) -> pafs.FileSystem:
    if scheme == "file":
        return pafs.LocalFileSystem()
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    options: dict[str, object] = {"region": region, "allow_bucket_creation": False, "allow_bucket_deletion": False}
    if endpoint:
        parts = urlsplit(endpoint)
        options |= {"endpoint_override": parts.netloc, "scheme": parts.scheme or "https"}
    return pafs.S3FileSystem(**options)


def _s3_put(path: str, data: bytes, **condition: str) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, key = path.split("/", 1)
    try:
        _s3_client().put_object(Bucket=bucket, Key=key, Body=data, **condition)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in ("PreconditionFailed", "ConditionalRequestConflict"):
            raise _race_lost(Location("s3", path)) from error
        code = error.response.get("Error", {}).get("Code", "unknown")
        raise MedfilipError(
            ErrorCode.STORAGE_FAILED,
            f"The bucket '{bucket}' cannot be written ({code}).",
            fix="Check that it exists and that the credentials may write to it.",
        ) from error
    except BotoCoreError as error:
        raise MedfilipError(
            ErrorCode.STORAGE_FAILED,
            f"The bucket '{bucket}' cannot be reached ({type(error).__name__}).",
            fix="Check the endpoint and the network, and start the job again: it resumes.",
        ) from error


@lru_cache(maxsize=1)
def _s3_client() -> Any:
    import boto3

    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return boto3.client("s3", region_name=region)


def _race_lost(location: Location) -> MedfilipError:
    return MedfilipError(
        ErrorCode.PUBLISH_RACE_LOST,
        f"Another process has already written {location}.",
        fix="Use what it published, or start a new run with --new-run.",
    )


def _temporary_beside(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}{_TEMPORARY}")


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith(_TEMPORARY)


def _write_synced(path: Path, data: bytes) -> None:
    try:
        with path.open("xb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        # On a full disk the half that was written would keep it full.
        path.unlink(missing_ok=True)
        raise


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
