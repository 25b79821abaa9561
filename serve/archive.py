"""The studies of an archive: fetched before they are diagnosed, and the answers stored beside their images."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.standards.pacs import PacsSettings

_AT_ONCE = 4  # connections wait for an archive; they cost no processor


@dataclass(frozen=True)
class StudyReference:
    """A study in an archive.

    Attributes
    ----------
    uid
        Study Instance UID.
    archive
        Name of the archive in the settings, or its address as it stands there.
    store
        Whether the answer shall be stored in it.
    """

    uid: str = field(repr=False)
    archive: str
    store: bool = False


class Archives:
    """Talks to the archives of the settings in threads of its own.

    Parameters
    ----------
    settings
        Which archives there are.
    max_images
        Images of a study; one with more is refused.
    max_bytes
        Of all images of a study together.
    """

    def __init__(self, settings: PacsSettings, max_images: int, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._settings = settings.model_copy(update={"max_instances": min(settings.max_instances, max_images)})
        self._threads = ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="archive")

    async def fetch(self, study: StudyReference, *, within_s: float) -> tuple[bytes, ...]:
        """Return the radiographs of a study; between two of them it gives up after ``within_s``.

        Raises
        ------
        MedfilipError
            ``INPUT_EMPTY`` if it has none, ``REQUEST_TOO_LARGE``, ``REQUEST_TIMEOUT``, or as
            `medfilip.standards.dicomweb.DicomWebClient`.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, self._fetch, study, time.monotonic() + within_s
        )

    async def store(self, study: StudyReference, files: Sequence[bytes]) -> None:
        """Store DICOM objects in a study.

        Raises
        ------
        MedfilipError
            As `medfilip.standards.dicomweb.DicomWebClient.store`.
        """
        await asyncio.get_running_loop().run_in_executor(self._threads, self._store, study, tuple(files))

    def _fetch(self, study: StudyReference, until: float) -> tuple[bytes, ...]:
        from medfilip.standards.dicomweb import DicomWebClient

        with _told_as_ours(), DicomWebClient(self._settings, study.archive) as client:
            found = client.find_radiographs(study.uid)
            if not found:
                raise MedfilipError(
                    ErrorCode.INPUT_EMPTY,
                    "The archive has no CR or DX images of this study.",
                    fix="Check the Study Instance UID and the archive.",
                )
            files: list[bytes] = []
            for instance in found:
                if time.monotonic() > until:  # whoever asked has been told so already
                    raise MedfilipError(
                        ErrorCode.REQUEST_TIMEOUT, "The archive was too slow.", fix="Send the request again later."
                    )
                files.append(client.fetch(instance))
                if sum(map(len, files)) > self._max_bytes:
                    raise MedfilipError(
                        ErrorCode.REQUEST_TOO_LARGE,
                        f"The images of the study are larger than max_body_bytes = {self._max_bytes} together.",
                        fix="Raise max_body_bytes, or send the images that matter.",
                    )
            return tuple(files)

    def _store(self, study: StudyReference, files: tuple[bytes, ...]) -> None:
        from medfilip.standards.dicomweb import DicomWebClient

        with _told_as_ours(), DicomWebClient(self._settings, study.archive) as client:
            client.store(study.uid, files)


@contextmanager
def _told_as_ours() -> Iterator[None]:
    """Tell an archive that does not know us apart from a caller whom this endpoint does not know."""
    try:
        yield
    except MedfilipError as error:
        if error.code not in (ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN):
            raise
        raise MedfilipError(
            ErrorCode.ARCHIVE_REFUSED,
            "The archive does not accept the credentials of this endpoint.",
            fix="Ask its operator to correct MEDFILIP_PACS_<NAME>.",
        ) from error
