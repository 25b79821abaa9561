"""The page at ``/``: files of this package, and phantoms that it draws when somebody picks one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from medfilip.core.errors import ErrorCode, MedfilipError
from serve.rendering import MEDIA_TYPES

_FOLDER = Path(__file__).parent / "page"
_FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
_HEADERS = {
    # Scripts, styles and requests of this endpoint alone; pictures that came in its answers.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}
_DRAWING = threading.Lock()


@dataclass(frozen=True)
class Sample:
    """A phantom of the page: a seed and an index that no training used, and what to call it."""

    name: str
    seed: int
    index: int


SAMPLES = tuple(
    Sample(f"Phantom {number}", 4_242, index) for number, index in enumerate((1, 9, 15, 27, 6, 12), start=1)
)


class ShownSample(BaseModel):
    """A phantom as the page lists it."""

    name: str
    path: str


class Format(BaseModel):
    """A form in which an answer can be downloaded."""

    title: str
    accept: str
    file: str


class PageFacts(BaseModel):
    """Answer of ``GET /page.json``."""

    samples: tuple[ShownSample, ...]
    formats: tuple[Format, ...]


FORMATS = (
    Format(title="JSON", accept=MEDIA_TYPES["json"], file="diagnosis.json"),
    Format(title="FHIR", accept=MEDIA_TYPES["fhir"], file="diagnosis.fhir.json"),
    Format(title="DICOM SR", accept=MEDIA_TYPES["sr"], file="diagnosis.dcm"),
)


def add_page(app: FastAPI) -> None:
    """Add the page and what it asks for to an application; they need no key and tell nothing that needs one."""
    for path, (name, kind) in _FILES.items():
        app.add_api_route(path, _file(name, kind), include_in_schema=False)

    @app.get("/page.json", include_in_schema=False)
    async def page() -> JSONResponse:
        samples = tuple(
            ShownSample(name=sample.name, path=f"samples/{number}.dcm") for number, sample in enumerate(SAMPLES, 1)
        )
        return JSONResponse(PageFacts(samples=samples, formats=FORMATS).model_dump())

    @app.get("/samples/{number}.dcm", include_in_schema=False)
    async def sample(number: int) -> Response:
        if not 1 <= number <= len(SAMPLES):
            raise MedfilipError(ErrorCode.NOT_FOUND, "There is no such phantom.", fix="See /page.json.")
        data, drawn = await asyncio.to_thread(_drawn, number)
        return Response(data, media_type="application/dicom", headers={"X-Drawn": ", ".join(drawn)})


def _file(name: str, kind: str) -> Callable[[], Awaitable[Response]]:
    content = (_FOLDER / name).read_bytes()

    async def answer() -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)

    return answer


def _drawn(number: int) -> tuple[bytes, tuple[str, ...]]:
    """Return a phantom as DICOM, and what is drawn in it; drawn once, and one at a time."""
    with _DRAWING:
        return _draw(number)


@lru_cache(maxsize=len(SAMPLES))
def _draw(number: int) -> tuple[bytes, tuple[str, ...]]:
    from medfilip.findings.ontology import load_ontology
    from medfilip.phantom.corpus import dicom_bytes
    from medfilip.phantom.study import DEMONSTRATED, StudyOptions, make_study

    sample = SAMPLES[number - 1]
    study = make_study(
        sample.seed, sample.index, options=StudyOptions(size=512, categories=DEMONSTRATED, prevalence=0.2)
    )
    ontology = load_ontology()
    present = tuple(ontology.label(name) for name, status in study.study_truth.items() if status.status == "present")
    return dicom_bytes(study), present
