"""A typed client of the endpoint, for Python programs that hold an image and want a diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar, Unpack

import httpx
from pydantic import ValidationError

from medfilip.answers import Answer, Diagnosis, Embedding, ErrorAnswer, Health, Labels, ModelCard
from medfilip.core.errors import ErrorCode, MedfilipError

GivenFile: TypeAlias = Path | str | bytes
_AnswerT = TypeVar("_AnswerT", bound=Answer)
_ACCEPT = {
    "fhir": "application/fhir+json",
    "sr": "application/dicom",
    "objects": 'multipart/related; type="application/dicom"',
}
# What a proxy in between may answer in its own words.
_BY_STATUS = {
    401: ErrorCode.UNAUTHENTICATED,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.NOT_FOUND,
    408: ErrorCode.REQUEST_TIMEOUT,
    411: ErrorCode.LENGTH_REQUIRED,
    413: ErrorCode.REQUEST_TOO_LARGE,
    406: ErrorCode.NOT_ACCEPTABLE,
    429: ErrorCode.RATE_LIMITED,
    502: ErrorCode.ENDPOINT_UNREACHABLE,
    503: ErrorCode.OVERLOADED,
    504: ErrorCode.REQUEST_TIMEOUT,
}


class AskedOver(TypedDict, total=False):
    """What an endpoint may be asked beside labels.

    Attributes
    ----------
    described
        New labels in words: name → visual phrases.
    operating_point
        Rule of the thresholds: ``f1``, ``youden`` or ``sensitivity``; ``None`` for the checkpoint's own.
    threshold
        One probability for all labels instead.
    attributes
        How many of its best matching visual attributes each finding tells.
    heat_maps
        Which findings get one: ``none``, ``present`` or ``all``.
    preview
        Whether the answer holds a PNG of each image as the model was shown it (`medfilip.answers.ImageFacts.preview`).
    study
        Study Instance UID of a study that the endpoint fetches from an archive over DICOMweb, instead of an image.
    archive
        Its archive, by a name of the endpoint's settings; ``None`` where there is one only.
    store
        Whether the answer is stored in that archive, as a structured report with captures and segmentations.
    """

    described: Mapping[str, str | Sequence[str]] | None
    operating_point: Literal["f1", "youden", "sensitivity"] | None
    threshold: float | None
    attributes: int
    heat_maps: Literal["none", "present", "all"]
    preview: bool
    study: str | None
    archive: str | None
    store: bool


class Client:
    """Talks to one endpoint; use it as a context manager, or close it.

    Parameters
    ----------
    url
        For example ``http://127.0.0.1:8000``.
    api_key
        The key that ``medfilip serve`` printed or an administrator gave; ``None`` where anonymous use is allowed.
    timeout_s
        Longest wait for an answer; one that is stored in an archive may take longer than others.
    """

    def __init__(self, url: str, api_key: str | None = None, *, timeout_s: float = 90.0) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        # No redirects: an answer that sends an image elsewhere is not followed.
        # And no proxy of the environment for an endpoint of this machine: it would see images and key in the clear.
        self._http = httpx.Client(
            base_url=url, headers=headers, timeout=timeout_s, follow_redirects=False, trust_env=not _is_loopback(url)
        )
        self._url = url

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def diagnose(
        self,
        image: GivenFile | Sequence[GivenFile] | None = None,
        labels: str | Sequence[str] | None = None,
        **asked: Unpack[AskedOver],
    ) -> Diagnosis:
        """Ask for a zero-shot diagnosis.

        Parameters
        ----------
        image
            Path of a DICOM, PNG or JPEG file, or its bytes; a list for the images of one study; ``None`` for a
            ``study`` of an archive.
        labels
            Ontology ids, their names, or short texts; ``None`` for the categories the model was calibrated for.
        asked
            What else is wanted; see `AskedOver`.

        Raises
        ------
        MedfilipError
            With the code the endpoint gave; ``ENDPOINT_UNREACHABLE`` or ``REQUEST_TIMEOUT`` if none came.
        """
        return _parse(self._diagnosed("application/json", image, labels, asked), Diagnosis)

    def diagnose_as(
        self,
        form: Literal["fhir", "sr", "objects"],
        image: GivenFile | Sequence[GivenFile] | None = None,
        labels: str | Sequence[str] | None = None,
        **asked: Unpack[AskedOver],
    ) -> list[bytes]:
        """Ask for a diagnosis in a standard form.

        Parameters
        ----------
        form
            ``fhir``: a DiagnosticReport as JSON. ``sr``: a DICOM structured report. ``objects``: that, and of each
            finding with a heat map a Secondary Capture and a segmentation.
        image, labels, asked
            As for `diagnose`.

        Returns
        -------
        list of bytes
            One file; several for ``objects``.

        Raises
        ------
        MedfilipError
            As `diagnose`.
        """
        answer = self._diagnosed(_ACCEPT[form], image, labels, asked)
        if form != "objects":
            return [answer.content]
        from medfilip.standards.multipart import decode

        return decode(answer.headers.get("content-type", ""), answer.content)

    def _diagnosed(
        self,
        accept: str,
        image: GivenFile | Sequence[GivenFile] | None,
        labels: str | Sequence[str] | None,
        asked: AskedOver,
    ) -> httpx.Response:
        fields = [("labels", label) for label in ([labels] if isinstance(labels, str) else labels or ())]
        fields += [("described", _described(*told)) for told in (asked.get("described") or {}).items()]
        single = {name: value for name, value in asked.items() if name != "described"}
        fields += [(name, _field(value)) for name, value in single.items() if value is not None]
        # Labels travel in the body: addresses end up in the logs of proxies.
        parts = _parts(image, fields)
        return self._send("POST", "/v1/diagnose", files=parts, headers={"Accept": accept})

    def embed(self, image: GivenFile | Sequence[GivenFile] | None = None, texts: Sequence[str] = ()) -> Embedding:
        """Embed the images of one study, texts, or both, in one space.

        Raises
        ------
        MedfilipError
            As `diagnose`.
        """
        parts = _parts(image, [("texts", text) for text in texts])
        return _parse(self._send("POST", "/v1/embed", files=parts), Embedding)

    def model(self) -> ModelCard:
        """Return what is known about the model."""
        return _parse(self._send("GET", "/v1/model"), ModelCard)

    def labels(self) -> Labels:
        """Return the categories that can be asked for by id."""
        return _parse(self._send("GET", "/v1/labels"), Labels)

    def health(self) -> Health:
        """Return whether the endpoint is ready to diagnose; an error says why not."""
        return _parse(self._send("GET", "/readyz"), Health)

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **content)
        except httpx.TimeoutException as error:
            raise MedfilipError(
                ErrorCode.REQUEST_TIMEOUT,
                f"The endpoint at {self._url} did not answer in time ({type(error).__name__}).",
                fix="Try again later, or raise timeout_s.",
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise MedfilipError(
                ErrorCode.ENDPOINT_UNREACHABLE,
                f"The endpoint at {self._url} cannot be reached ({type(error).__name__}).",
                fix="Check the address, and that 'medfilip serve' is running.",
            ) from error
        if answer.status_code != httpx.codes.OK:
            raise _error(answer)
        return answer


def _described(name: str, phrases: str | Sequence[str]) -> str:
    """Write a described label as the endpoint reads it: "NAME: phrase; phrase"."""
    told = [phrases] if isinstance(phrases, str) else list(phrases)
    if ":" in name or any(";" in phrase for phrase in told):
        raise MedfilipError(
            ErrorCode.REQUEST_INVALID,
            "The name of a described label holds a ':', or a phrase of it a ';'.",
            fix="Leave them out: they separate name and phrases.",
        )
    return f"{name}: {'; '.join(told)}"


def _is_loopback(url: str) -> bool:
    host = httpx.URL(url).host if "://" in url else ""
    return host in ("localhost", "127.0.0.1", "::1")


def _parts(image: GivenFile | Sequence[GivenFile] | None, fields: Sequence[tuple[str, str]]) -> list[tuple[str, Any]]:
    """Return the parts of a form: without a file httpx would send another format, so fields are parts like files."""
    images = [] if image is None else [image] if isinstance(image, Path | str | bytes) else image
    files = [("file", ("image", _bytes(item), "application/octet-stream")) for item in images]
    if not files and not fields:
        raise MedfilipError(
            ErrorCode.REQUEST_INVALID, "There is nothing to send.", fix="Give an image, a study of an archive or texts."
        )
    return [*files, *((name, (None, text)) for name, text in fields)]


def _field(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _bytes(image: Path | str | bytes) -> bytes:
    if isinstance(image, bytes):
        return image
    try:
        return Path(image).expanduser().read_bytes()
    except OSError as error:
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND, "The image file cannot be read.", fix="Check its path and permissions."
        ) from error


def _parse(answer: httpx.Response, model: type[_AnswerT]) -> _AnswerT:
    try:
        return model.model_validate_json(answer.content)
    except ValidationError as error:
        raise MedfilipError(
            ErrorCode.INTERNAL,
            f"The answer of the endpoint is no {model.__name__} ({error.error_count()} fields do not fit).",
            fix="Use a client of the same version as the endpoint.",
        ) from None


def _error(answer: httpx.Response) -> MedfilipError:
    try:
        body = ErrorAnswer.model_validate_json(answer.content).error
        return MedfilipError(ErrorCode(body.code), body.message, fix=body.fix)
    except ValueError:  # also pydantic's; a proxy's own page, or a code that this version does not know
        return MedfilipError(
            _BY_STATUS.get(answer.status_code, ErrorCode.INTERNAL),
            f"The endpoint answered with status {answer.status_code}.",
            fix="Try again later; if it stays, look at the endpoint's log.",
        )
