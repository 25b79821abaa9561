"""Reading a request: its body up to a limit, its image and its labels, whichever of the accepted forms it has."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from medfilip.answers import AnswerWarning
from medfilip.core.errors import ErrorCode, MedfilipError
from serve.settings import ServeSettings

RAW_TYPES = ("application/dicom", "application/octet-stream", "image/png", "image/jpeg")
FORM_TYPE = "multipart/form-data"


@dataclass(frozen=True)
class DiagnoseRequest:
    """An image and what to look for.

    Attributes
    ----------
    image
        The file, as received.
    labels
        Distinct and with single blanks; ``None`` for the default ones.
    warnings
        What was understood otherwise than it was sent.
    """

    image: bytes = field(repr=False)
    labels: tuple[str, ...] | None = field(default=None, repr=False)
    warnings: tuple[AnswerWarning, ...] = ()


async def read_request(request: Request, settings: ServeSettings) -> DiagnoseRequest:
    """Read a request of ``POST /v1/diagnose``: multipart, or a raw image with ``?labels=``.

    Raises
    ------
    MedfilipError
        ``MEDIA_TYPE_UNSUPPORTED``, ``LENGTH_REQUIRED``, ``REQUEST_TOO_LARGE`` or ``REQUEST_INVALID``.
    """
    media_type = check_head(request.headers, settings)
    asked = _query_labels(request)
    body = await read_body(request, settings.max_body_bytes)
    if media_type == FORM_TYPE:
        body, fields = await _read_form(request.headers, body, settings)
        asked += fields
    if not body:
        raise _invalid("The image is empty.", "Send the bytes of one DICOM, PNG or JPEG file.")
    labels, warnings = clean_labels(asked, settings)
    return DiagnoseRequest(body, labels, warnings)


def check_head(headers: Headers, settings: ServeSettings) -> str:
    """Return the media type, after everything that the headers alone can refuse."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in (*RAW_TYPES, FORM_TYPE):
        raise MedfilipError(
            ErrorCode.MEDIA_TYPE_UNSUPPORTED,
            "The Content-Type is not one that is accepted.",
            fix=f"Send one of: {', '.join((FORM_TYPE, *RAW_TYPES))}.",
        )
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        # A compressed body has no honest length.
        raise MedfilipError(
            ErrorCode.MEDIA_TYPE_UNSUPPORTED, "The body has a Content-Encoding.", fix="Send it without compression."
        )
    declared = headers.get("content-length", "")
    if "transfer-encoding" in headers or not (declared.isascii() and declared.isdigit()):
        # Ray Serve's proxy reads a body as fast as it comes and holds what this side has not taken yet. Of a body of
        # 1 GB without a length it took in 295 MB before the limit below was noticed; a declared length it enforces.
        raise MedfilipError(
            ErrorCode.LENGTH_REQUIRED,
            "The request does not say how long its body is.",
            fix="Send a Content-Length header instead of a chunked body; sending a file or bytes does.",
        )
    if int(declared) > settings.max_body_bytes:
        raise _too_large(settings.max_body_bytes)
    return media_type


async def read_body(request: Request, limit: int) -> bytes:
    """Read a body, and give up at the first chunk that would exceed ``limit`` bytes.

    Raises
    ------
    MedfilipError
        ``REQUEST_TOO_LARGE``.
    """
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > limit:
            raise _too_large(limit)
        body += chunk
    return bytes(body)


def clean_labels(
    asked: Sequence[str], settings: ServeSettings
) -> tuple[tuple[str, ...] | None, tuple[AnswerWarning, ...]]:
    """Check labels and bring them to single blanks; a repeated one counts once and is warned of.

    Raises
    ------
    MedfilipError
        ``REQUEST_INVALID``, without quoting a label.
    """
    if len(asked) > settings.max_labels:
        raise _invalid(
            f"The request has {len(asked)} labels; max_labels is {settings.max_labels}.", "Split it into several."
        )
    labels = [" ".join(label.split()) for label in asked]
    for number, label in enumerate(labels, start=1):
        if not 1 <= len(label) <= settings.max_label_characters:
            raise _invalid(
                f"Label {number} has {len(label)} characters; 1 to max_label_characters = "
                f"{settings.max_label_characters} are allowed.",
                "Give a category id, its name or a short description.",
            )
        if not label.isprintable():
            raise _invalid(f"Label {number} has characters that cannot be printed.", "Send plain text in UTF-8.")
    distinct = tuple(dict.fromkeys(labels))
    repeated = len(labels) - len(distinct)
    message = f"{repeated} labels were asked for more than once; each is answered once."
    warnings = (AnswerWarning(code="labels_repeated", message=message),) if repeated else ()
    return distinct or None, warnings


def _query_labels(request: Request) -> list[str]:
    names = {name for name, _ in request.query_params.multi_items()}
    if names - {"labels"}:
        raise _invalid("The address has a parameter other than 'labels'.", "Write ?labels=LABEL&labels=LABEL.")
    return request.query_params.getlist("labels")


class _InMemoryParser(MultiPartParser):
    """Keeps files in memory, whose size is bounded already: images of patients are never spooled to a disk."""

    spool_max_size = 2**40


async def _read_form(headers: Headers, body: bytes, settings: ServeSettings) -> tuple[bytes, list[str]]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    parser = _InMemoryParser(
        headers,
        stream(),
        max_files=1,
        max_fields=settings.max_labels + 1,  # one more, so that too many labels are told as that
        max_part_size=4 * settings.max_label_characters + 4,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError, LookupError, AttributeError) as error:
        # The parser's messages and exceptions may quote the body.
        raise _invalid(
            "The multipart body cannot be read, or has more than one file, too many fields or a field that is too long "
            f"(max_labels = {settings.max_labels}, max_label_characters = {settings.max_label_characters}).",
            "Send one part 'file' with a file name, and a part 'labels' for every label.",
        ) from error
    try:
        return await _take_parts(form)
    finally:
        await form.close()


async def _take_parts(form: FormData) -> tuple[bytes, list[str]]:
    if {name for name, _ in form.multi_items()} - {"file", "labels"}:
        raise _invalid("The form has a field other than 'file' and 'labels'.", "Leave it out.")
    file, labels = form.get("file"), form.getlist("labels")
    if not isinstance(file, UploadFile):
        raise _invalid("The form has no file named 'file'.", "Add it, for example: curl -F file=@image.dcm.")
    texts = [label for label in labels if isinstance(label, str)]
    if len(texts) != len(labels):
        raise _invalid("A part named 'labels' is a file.", "Send labels as text.")
    return await file.read(), texts


def _too_large(limit: int) -> MedfilipError:
    return MedfilipError(
        ErrorCode.REQUEST_TOO_LARGE,
        f"The request is larger than max_body_bytes = {limit}.",
        fix="Send one radiograph per request.",
    )


def _invalid(message: str, fix: str) -> MedfilipError:
    return MedfilipError(ErrorCode.REQUEST_INVALID, message, fix=fix)
