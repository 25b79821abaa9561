"""A DICOMweb client for what a diagnosis needs of an archive: find radiographs, fetch one, store answers.

An archive is one of those that settings name; its address never comes from a request. No redirect is followed, no
proxy or netrc of the machine is used, bodies are bounded while they are read, and what comes back is checked against
what was asked for: a radiograph of another patient is worse than none. UIDs and credentials are in no message.

``dicomweb-client`` would do the same requests, but reads answers whole before anybody can bound them and hands out
data sets that it has parsed already, where the guarded decoder wants the bytes.
"""

from __future__ import annotations

import base64
import json
import logging
import ssl
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.secrets import read_secret
from medfilip.imaging.dicom_file import parse_attributes
from medfilip.imaging.limits import ImageLimits
from medfilip.standards import multipart
from medfilip.standards.pacs import PacsSettings, find_archive, secret_name
from medfilip.standards.source import is_uid

_JSON = "application/dicom+json"
_MODALITIES = ("CR", "DX")
_CLASSES = frozenset({"1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1"})
"""CR and DX for presentation (PS3.4, annex B.5): servers may leave a filter unheeded (PS3.18, section 8.3.4)."""
_SOP_CLASS, _SOP, _SERIES, _NUMBER = "00080016", "00080018", "0020000E", "00200013"
_FAILED, _STORED, _REFERENCED, _REASON = "00081198", "00081199", "00081155", "00081197"
_BY_STATUS = {
    401: (ErrorCode.UNAUTHENTICATED, "refused the credentials"),
    403: (ErrorCode.FORBIDDEN, "does not allow this"),
    404: (ErrorCode.NOT_FOUND, "has no such study or image"),
    408: (ErrorCode.REQUEST_TIMEOUT, "did not wait for the request"),
    410: (ErrorCode.NOT_FOUND, "has no such study or image any more"),
    413: (ErrorCode.REQUEST_TOO_LARGE, "takes no request of this size"),
    429: (ErrorCode.OVERLOADED, "is overloaded"),
    503: (ErrorCode.OVERLOADED, "is overloaded"),
    504: (ErrorCode.REQUEST_TIMEOUT, "did not answer in time"),
}
_DONE = frozenset({200, 202, 204, 409})  # 409 tells which instances were not stored (PS3.18, table 10.5.3-1)


@dataclass(frozen=True, order=True)
class Instance:
    """An image of a study; its UIDs identify it, and with it the patient.

    Attributes
    ----------
    number
        Instance Number; 0 where the archive does not say.
    """

    study_uid: str
    series_uid: str
    number: int
    sop_uid: str
    sop_class: str


class DicomWebClient:
    """Talks to one archive; use it as a context manager, or close it.

    Parameters
    ----------
    settings
        The archives that may be talked to, and the bounds.
    archive
        Name of one, or its base URL as it stands in the settings.

    Raises
    ------
    MedfilipError
        ``URI_NOT_ALLOWED`` for any other archive, ``SECRET_MISSING``, ``CONFIG_INVALID`` for a bad certificate file.
    """

    def __init__(self, settings: PacsSettings, archive: str) -> None:
        name, place = find_archive(settings, archive)
        self._settings, self._name = settings, name
        # httpx logs every address at level INFO, and here addresses hold the UIDs of studies.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        self._http = httpx.Client(
            base_url=f"{place.url.rstrip('/')}/",
            headers={"Accept-Encoding": "identity", **_authorisation(name)},
            timeout=httpx.Timeout(settings.read_timeout_s, connect=settings.connect_timeout_s),
            follow_redirects=False,
            trust_env=False,
            verify=_verify(place.ca_file),
        )

    def __enter__(self) -> DicomWebClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def find_radiographs(self, study_uid: str) -> tuple[Instance, ...]:
        """Return the CR and DX images of a study, by series and number; empty if there are none (QIDO-RS).

        Raises
        ------
        MedfilipError
            ``REQUEST_INVALID`` for an invalid UID, ``REQUEST_TOO_LARGE`` for a study with more than
            ``max_instances``, or what the archive answered.
        """
        path, limit = f"studies/{_checked(study_uid)}/instances", self._settings.max_instances
        found: set[Instance] = set()
        for modality in _MODALITIES:
            asked = {"Modality": modality, "limit": str(limit + 1)}
            _, body = self._send("GET", path, self._settings.max_query_bytes, accept=_JSON, params=asked)
            told = _json_list(body)
            own = set(self._instances(told, study_uid))
            if len(told) > limit and len(own) < len(told):
                raise _invalid("it ignores the modality that was searched for, so that images may be missing from it")
            found |= own
        if len(found) > limit:
            raise MedfilipError(
                ErrorCode.REQUEST_TOO_LARGE,
                f"The study has more than max_instances = {limit} CR and DX images.",
                fix="A chest examination has a few; name the images to be read.",
            )
        return tuple(sorted(found))

    def fetch(self, instance: Instance) -> bytes:
        """Return an image as a DICOM file, in the transfer syntax it is stored in (WADO-RS).

        Raises
        ------
        MedfilipError
            ``REQUEST_INVALID`` for an invalid UID, ``IMAGE_TOO_LARGE`` for more than ``max_instance_bytes``,
            ``REPLY_INVALID`` for anything but the one image that was asked for, or what the archive answered.
        """
        study, series, sop = map(_checked, (instance.study_uid, instance.series_uid, instance.sop_uid))
        kind, body = self._send(
            "GET",
            f"studies/{study}/series/{series}/instances/{sop}",
            self._settings.max_instance_bytes,
            accept=f'multipart/related; type="{multipart.DICOM}"; transfer-syntax=*',
        )
        parts = multipart.decode(kind, body)
        if len(parts) != 1 or self._identity(parts[0]) != (study, sop):
            raise _invalid("it is not the one image that was asked for")
        return parts[0]

    def store(self, study_uid: str, files: Sequence[bytes]) -> None:
        """Store DICOM files in a study (STOW-RS), all of them or with an error.

        Parameters
        ----------
        study_uid
            The study that each of them belongs to.
        files
            As `medfilip.standards.source.part10` gives them.

        Raises
        ------
        MedfilipError
            ``REQUEST_INVALID`` for a file of another study, ``REQUEST_TOO_LARGE`` for more than ``max_store_bytes``,
            ``STORE_REFUSED`` with the archive's reason for those that it did not take, or what the archive answered.
        """
        total = sum(map(len, files))
        if not files or total > self._settings.max_store_bytes:
            raise MedfilipError(
                ErrorCode.REQUEST_TOO_LARGE,
                f"{len(files)} files of {total} bytes; 1 byte to max_store_bytes = {self._settings.max_store_bytes}.",
                fix="Store fewer objects at a time.",
            )
        identities = [self._identity(file) for file in files]
        if {study for study, _ in identities} != {_checked(study_uid)}:
            raise MedfilipError(
                ErrorCode.REQUEST_INVALID, "A file belongs to another study.", fix="Store each study by itself."
            )
        kind, content = multipart.encode(files)
        _, body = self._send(
            "POST",
            f"studies/{study_uid}",
            self._settings.max_query_bytes,
            accept=_JSON,
            content=content,
            content_type=kind,
        )
        _check_stored(body, {sop for _, sop in identities})

    def _instances(self, told: Iterable[Any], study_uid: str) -> Iterable[Instance]:
        for item in told:
            if _value(item, _SOP_CLASS) in _CLASSES:
                number = _value(item, _NUMBER)
                yield Instance(
                    study_uid=study_uid,
                    series_uid=_answered_uid(item, _SERIES),
                    number=number if isinstance(number, int) else 0,
                    sop_uid=_answered_uid(item, _SOP),
                    sop_class=str(_value(item, _SOP_CLASS)),
                )

    def _identity(self, file: bytes) -> tuple[str, str]:
        """Return the UIDs of study and instance of a file."""
        limits = ImageLimits(max_file_bytes=max(self._settings.max_instance_bytes, self._settings.max_store_bytes))
        header = parse_attributes(file, limits, ("StudyInstanceUID", "SOPInstanceUID"))
        return str(header.get("StudyInstanceUID", "")), str(header.get("SOPInstanceUID", ""))

    def _send(self, method: str, path: str, limit: int, *, accept: str, **asked: Any) -> tuple[str, bytes]:
        """Return content type and body of an answer that is no failure."""
        headers = {"Accept": accept}
        if "content_type" in asked:
            headers["Content-Type"] = asked.pop("content_type")
        deadline = time.monotonic() + self._settings.total_timeout_s
        try:
            with self._http.stream(method, path, headers=headers, **asked) as answer:
                self._judge(answer)
                return answer.headers.get("content-type", ""), self._read(answer, limit, deadline)
        except httpx.TimeoutException as error:
            raise self._timeout(type(error).__name__) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            # not chained: the exception holds the request, and with it UIDs and credentials
            raise MedfilipError(
                ErrorCode.ENDPOINT_UNREACHABLE,
                f"The archive '{self._name}' cannot be reached ({type(error).__name__}).",
                fix="Check its address, certificate and network.",
            ) from None

    def _judge(self, answer: httpx.Response) -> None:
        if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise _invalid("it has a Content-Encoding, though none was accepted")
        if answer.status_code in _DONE:
            return
        code, what = _BY_STATUS.get(
            answer.status_code, (ErrorCode.ENDPOINT_UNREACHABLE, f"answered with status {answer.status_code}")
        )
        if answer.is_redirect:
            what = "answered with a redirect, which is not followed"
        raise MedfilipError(code, f"The archive '{self._name}' {what}.", fix="Check the archive and its settings.")

    def _read(self, answer: httpx.Response, limit: int, deadline: float) -> bytes:
        body = bytearray()
        for piece in answer.iter_raw():
            body += piece
            if len(body) > limit:
                raise MedfilipError(
                    ErrorCode.IMAGE_TOO_LARGE,
                    f"The archive '{self._name}' sends more than {limit} bytes.",
                    fix="Raise max_instance_bytes or max_query_bytes, if an answer may be as large.",
                )
            if time.monotonic() > deadline:  # a server that sends a byte now and then never times out by itself
                raise self._timeout("total_timeout_s")
        return bytes(body)

    def _timeout(self, what: str) -> MedfilipError:
        return MedfilipError(
            ErrorCode.REQUEST_TIMEOUT,
            f"The archive '{self._name}' did not answer in time ({what}).",
            fix="Try again later, or raise its time limits.",
        )


def _authorisation(name: str) -> dict[str, str]:
    """Return the header for ``user:password`` or ``Bearer TOKEN``; nothing without a secret."""
    secret = read_secret(secret_name(name))
    if not secret:
        return {}
    if secret.startswith("Bearer "):
        return {"Authorization": secret}
    if ":" not in secret:
        raise MedfilipError(
            ErrorCode.SECRET_MISSING,
            f"The secret MEDFILIP_{secret_name(name)} is neither 'user:password' nor 'Bearer TOKEN'.",
            fix="Write it in one of these forms.",
        )
    return {"Authorization": f"Basic {base64.b64encode(secret.encode()).decode()}"}


def _verify(ca_file: str) -> ssl.SSLContext | bool:
    try:
        return ssl.create_default_context(cafile=ca_file) if ca_file else True
    except OSError as error:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"The certificate file of the archive cannot be read ({type(error).__name__}).",
            fix="Give a PEM file with the certificate of its authority.",
        ) from None


def _checked(uid: str) -> str:
    if not is_uid(uid):
        raise MedfilipError(
            ErrorCode.REQUEST_INVALID, "A UID is not valid.", fix="Give digits and dots, at most 64, as DICOM has them."
        )
    return uid


def _answered_uid(item: dict[str, Any], tag: str) -> str:
    try:
        return _checked(str(_value(item, tag)))
    except MedfilipError:
        raise _invalid("a UID in it is missing or not valid") from None


def _json_list(body: bytes) -> list[dict[str, Any]]:
    """Read an answer in the DICOM JSON model (PS3.18, annex F); no body is an empty list."""
    try:
        content = json.loads(body) if body else []
    except (ValueError, RecursionError):
        raise _invalid("it is no JSON") from None
    items = [content] if isinstance(content, dict) else content
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise _invalid("it is no list of data sets")
    return items


def _value(item: dict[str, Any], tag: str) -> Any:
    """Return the first value of an attribute, or ``None``."""
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _items(item: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _check_stored(body: bytes, wanted: set[str]) -> None:
    """Compare what the archive says it stored with what it was given (PS3.18, table 10.5.3-3)."""
    answers = _json_list(body)
    failed = [item for answer in answers for item in _items(answer, _FAILED)]
    stored = {str(_value(item, _REFERENCED)) for answer in answers for item in _items(answer, _STORED)}
    if failed or not wanted <= stored:
        codes = sorted({f"{reason:04X}" for item in failed if isinstance(reason := _value(item, _REASON), int)})
        reasons = f" (failure reason {', '.join(codes)})" if codes else ""
        raise MedfilipError(
            ErrorCode.STORE_REFUSED,
            f"The archive stored {len(wanted & stored)} of {len(wanted)} objects{reasons}.",
            fix="Look up the reason in its log; it may not take these SOP classes.",
        )


def _invalid(what: str) -> MedfilipError:
    return MedfilipError(
        ErrorCode.REPLY_INVALID, f"The archive's answer cannot be used: {what}.", fix="Check that it speaks DICOMweb."
    )
