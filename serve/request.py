"""Reading a request: its body up to a limit, its images and its question, whichever of the accepted forms it has."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from medfilip.answers import AnswerWarning
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import canonical_json, sha256_bytes
from medfilip.model.calibration import Rule
from medfilip.model.question import Described, HeatMaps, Question
from serve.archive import StudyReference
from serve.settings import ServeSettings
from serve.upload import read_body, too_large

RAW_TYPES = ("application/dicom", "application/octet-stream", "image/png", "image/jpeg")
FORM_TYPE = "multipart/form-data"
QUESTION_FIELDS = ("labels", "described", "operating_point", "threshold", "attributes", "heat_maps", "preview")
STUDY_FIELDS = ("study", "archive", "store")
MAX_PHRASES = 12
"""Visual phrases of a described label: more than a text encoder reads."""


@dataclass(frozen=True)
class DiagnoseRequest:
    """A study and what is asked about it.

    Attributes
    ----------
    images
        The files, as received.
    question
        Labels distinct and with single blanks; none for the default ones.
    preview
        Whether the answer shall hold the images as well.
    study
        Where the images are to be fetched from, if they are not in the request.
    warnings
        What was understood otherwise than it was sent.
    """

    images: tuple[bytes, ...] = field(repr=False)
    question: Question = field(default=Question(), repr=False)
    preview: bool = False
    study: StudyReference | None = None
    warnings: tuple[AnswerWarning, ...] = ()

    def input_hashes(self) -> list[str]:
        """Return the SHA-256 of each file."""
        return [sha256_bytes(image) for image in self.images]

    def question_hash(self) -> str:
        """Return the SHA-256 of what is asked."""
        asked = asdict(self.question) | {"study": None if self.study is None else asdict(self.study)}
        return sha256_bytes(canonical_json(asked).encode())


@dataclass(frozen=True)
class EmbedRequest:
    """The images of one study, texts, or both."""

    images: tuple[bytes, ...] = field(repr=False)
    texts: tuple[str, ...] = field(repr=False)

    def input_hashes(self) -> list[str]:
        """Return the SHA-256 of each file."""
        return [sha256_bytes(image) for image in self.images]

    def question_hash(self) -> str:
        """Return the SHA-256 of the texts."""
        return sha256_bytes(canonical_json(list(self.texts)).encode())


async def read_request(request: Request, settings: ServeSettings) -> DiagnoseRequest:
    """Read a request of ``POST /v1/diagnose``: multipart, or one raw image with the fields in its address.

    Raises
    ------
    MedfilipError
        ``MEDIA_TYPE_UNSUPPORTED``, ``LENGTH_REQUIRED``, ``REQUEST_TOO_LARGE``, ``UPLOAD_TIMEOUT`` or
        ``REQUEST_INVALID``.
    """
    images, fields = await _read_fields(request, settings, (*QUESTION_FIELDS, *STUDY_FIELDS))
    study = _study(fields, settings)
    if study is not None and images:
        raise _invalid("There are both a file and a 'study'.", "Send the files, or name a study of an archive.")
    if study is None and not images:
        raise _no_image()
    question, warnings = read_question(fields, settings)
    preview = _one_of(fields, "preview", ("true", "false")) == "true"
    return DiagnoseRequest(images, question, preview, study, warnings)


async def read_embed_request(request: Request, settings: ServeSettings) -> EmbedRequest:
    """Read a request of ``POST /v1/embed``: multipart, or one raw image.

    Raises
    ------
    MedfilipError
        As `read_request`.
    """
    images, fields = await _read_fields(request, settings, ("texts",))
    texts = _clean_texts(fields.get("texts", []), "texts", settings)
    if not images and not texts:
        raise _invalid("There is nothing to embed.", "Send a part 'file', a part 'texts', or several of them.")
    return EmbedRequest(images, tuple(texts))


async def _read_fields(
    request: Request, settings: ServeSettings, known: Sequence[str]
) -> tuple[tuple[bytes, ...], dict[str, list[str]]]:
    """Return the files of a request, and its fields from the address and the form."""
    media_type = check_head(request.headers, settings)
    fields: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            raise _invalid(
                "The address has a parameter that is not known.", f"Known are: {', '.join(known)}; repeat one for many."
            )
        fields.setdefault(name, []).append(value)
    body = await read_body(request, settings)
    if media_type != FORM_TYPE:
        if not body:
            raise _no_image()
        return (body,), fields
    images, more = await _read_form(request.headers, body, settings, known)
    for name, values in more.items():
        fields.setdefault(name, []).extend(values)
    return images, fields


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
        raise too_large(settings.max_body_bytes)
    return media_type


def read_question(
    fields: Mapping[str, Sequence[str]], settings: ServeSettings
) -> tuple[Question, tuple[AnswerWarning, ...]]:
    """Read what is asked from the fields of a request; a repeated label counts once and is warned of.

    Raises
    ------
    MedfilipError
        ``REQUEST_INVALID``, naming the field and its limit, without quoting what was sent.
    """
    asked, described = fields.get("labels", ()), fields.get("described", ())
    count = len(asked) + len(described)
    if count > settings.max_labels:
        raise _invalid(
            f"The request has {count} labels; max_labels is {settings.max_labels}.", "Split it into several."
        )
    labels = _clean_texts(asked, "labels", settings)
    distinct = tuple(dict.fromkeys(labels))
    repeated = len(labels) - len(distinct)
    message = f"{repeated} labels were asked for more than once; each is answered once."
    warnings = (AnswerWarning(code="labels_repeated", message=message),) if repeated else ()
    question = Question(
        labels=distinct,
        described=tuple(_described(text, settings) for text in described),
        operating_point=_one_of(fields, "operating_point", get_args(Rule)),
        threshold=_number(fields, "threshold", 0.0, 1.0),
        attributes=int(_number(fields, "attributes", 0, settings.max_attributes, whole=True) or 0),
        heat_maps=_one_of(fields, "heat_maps", get_args(HeatMaps)) or "none",
    )
    if question.threshold is not None and question.operating_point is not None:
        raise _invalid("Both 'operating_point' and 'threshold' are given.", "Leave one of them out.")
    return question, warnings


def _clean_texts(texts: Sequence[str], name: str, settings: ServeSettings) -> list[str]:
    cleaned = [" ".join(text.split()) for text in texts]
    if len(cleaned) > settings.max_labels:
        raise _invalid(
            f"There are {len(cleaned)} '{name}'; max_labels is {settings.max_labels}.", "Split it into several."
        )
    for number, text in enumerate(cleaned, start=1):
        if not 1 <= len(text) <= settings.max_label_characters:
            raise _invalid(
                f"Entry {number} of '{name}' has {len(text)} characters; 1 to max_label_characters = "
                f"{settings.max_label_characters} are allowed.",
                "Give a category id, its name or a short description.",
            )
        if not text.isprintable():
            raise _invalid(f"Entry {number} of '{name}' cannot be printed.", "Send plain text in UTF-8.")
    return cleaned


def _described(text: str, settings: ServeSettings) -> Described:
    """Read "NAME: phrase; phrase"."""
    try:
        told = Described.read(text)
    except ValueError:
        told = None
    if told is None or len(told.attributes) > MAX_PHRASES:
        raise _invalid(
            f"An entry of 'described' is not a name and 1 to {MAX_PHRASES} visual phrases.",
            "Write it like: air crescent sign: crescent of air around a mass; thin dark rim.",
        )
    [cleaned] = _clean_texts([told.name], "described", settings)
    return Described(cleaned, tuple(_clean_texts(told.attributes, "described", settings)))


def _study(fields: Mapping[str, Sequence[str]], settings: ServeSettings) -> StudyReference | None:
    uid, archive = _single(fields, "study"), _single(fields, "archive")
    store = _one_of(fields, "store", ("true", "false")) == "true"
    if not uid:
        if archive or store:
            raise _invalid("There is an 'archive' or 'store' without a 'study'.", "Give the Study Instance UID.")
        return None
    known = list(settings.pacs.archives)
    if not archive and len(known) != 1:
        raise _invalid(
            f"The endpoint has {len(known)} archives, and the field 'archive' names none.",
            "Name one, or have it added.",
        )
    return StudyReference(uid, archive or known[0], store)


def _single(fields: Mapping[str, Sequence[str]], name: str) -> str | None:
    values = fields.get(name, ())
    if len(values) > 1:
        raise _invalid(f"The field '{name}' is given {len(values)} times.", "Give it once.")
    return values[0].strip() if values else None


def _one_of(fields: Mapping[str, Sequence[str]], name: str, choices: Sequence[Any]) -> Any:
    value = _single(fields, name)
    if value and value not in choices:
        raise _invalid(f"The field '{name}' has a value that is not known.", f"Give one of: {', '.join(choices)}.")
    return value or None


def _number(
    fields: Mapping[str, Sequence[str]], name: str, low: float, high: float, *, whole: bool = False
) -> float | None:
    text = _single(fields, name)
    if not text:
        return None
    try:
        value = float(int(text)) if whole else float(text)
    except (ValueError, OverflowError):
        value = float("nan")
    if not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        raise _invalid(f"The field '{name}' must be {kind} from {low:g} to {high:g}.", "Correct it, or leave it out.")
    return value


class _InMemoryParser(MultiPartParser):
    """Keeps files in memory, whose size is bounded already: images of patients are never spooled to a disk."""

    spool_max_size = 2**40


async def _read_form(
    headers: Headers, body: bytes, settings: ServeSettings, known: Sequence[str]
) -> tuple[tuple[bytes, ...], dict[str, list[str]]]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    parser = _InMemoryParser(
        headers,
        stream(),
        max_files=settings.max_images,
        max_fields=settings.max_labels + len(known),  # so that too many labels are told as that
        max_part_size=4 * settings.max_label_characters * (MAX_PHRASES + 1) + 4,
    )
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError, LookupError, AttributeError) as error:
        # The parser's messages and exceptions may quote the body.
        raise _invalid(
            f"The multipart body cannot be read, or has more than max_images = {settings.max_images} files, too many "
            f"fields or a field that is too long (max_labels = {settings.max_labels}, "
            f"max_label_characters = {settings.max_label_characters}).",
            "Send a part 'file' with a file name for every image of one study, and a part 'labels' for every label.",
        ) from error
    try:
        return await _take_parts(form, known)
    finally:
        await form.close()


async def _take_parts(form: FormData, known: Sequence[str]) -> tuple[tuple[bytes, ...], dict[str, list[str]]]:
    if {name for name, _ in form.multi_items()} - {"file", *known}:
        raise _invalid("The form has a field that is not known.", f"Known are: file, {', '.join(known)}.")
    files = form.getlist("file")
    images = [await file.read() for file in files if isinstance(file, UploadFile)]
    if len(images) != len(files):
        raise _invalid("A part named 'file' has no file name.", "Add it, for example: curl -F file=@image.dcm.")
    if not all(images):
        raise _no_image()
    fields: dict[str, list[str]] = {}
    for name, value in form.multi_items():
        if name == "file":
            continue
        if not isinstance(value, str):
            raise _invalid(f"A part named '{name}' is a file.", "Send it as text.")
        fields.setdefault(name, []).append(value)
    return tuple(images), fields


def _no_image() -> MedfilipError:
    return _invalid(
        "There is no image, or it is empty.",
        "Send the bytes of one DICOM, PNG or JPEG file, or a part 'file': curl -F file=@image.dcm.",
    )


def _invalid(message: str, fix: str) -> MedfilipError:
    return MedfilipError(ErrorCode.REQUEST_INVALID, message, fix=fix)
