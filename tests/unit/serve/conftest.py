"""The real HTTP application on the real services, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from medfilip.answers import Diagnosis, LabelFacts, ModelCard
from medfilip.model.question import Question
from serve.decoding import DecoderService
from serve.encoding import EncoderService
from serve.gateway import Gateway
from serve.keys import KeyRing, hash_key
from serve.messages import Decoded, Embedded, FloatArray, Refused, Told
from serve.rendering import Form
from serve.settings import ServeSettings
from serve.web import http_app

KEY = "a-key-of-the-tests-0123456789"


class InProcess:
    """A backend that calls the services directly."""

    def __init__(self, decoder: DecoderService, encoder: EncoderService) -> None:
        self.decoder, self.encoder = decoder, encoder

    async def decode(self, data: bytes, image_size: int, preview: bool) -> Decoded | Refused:
        return self.decoder.decode(data, image_size, preview=preview)

    async def render(self, form: Form, diagnosis: Diagnosis, files: Sequence[bytes]) -> tuple[bytes, ...] | Refused:
        return self.decoder.render(form, diagnosis, files)

    async def answer(self, question: Question, images: Sequence[Decoded]) -> Told | Refused:
        return self.encoder.answer(question, self._views(images), images)

    async def embed(self, images: Sequence[Decoded], texts: Sequence[str]) -> Embedded | Refused:
        return self.encoder.embed_all(self._views(images), texts)

    def _views(self, images: Sequence[Decoded]) -> list[FloatArray]:
        views = self.encoder.embed([image.pixels for image in images])
        return [view for view in views if not isinstance(view, Refused)]

    async def card(self) -> ModelCard:
        return self.encoder.card()

    async def labels(self) -> tuple[LabelFacts, ...]:
        return self.encoder.labels()


@pytest.fixture(scope="module")
def encoder(tiny_checkpoint: Path) -> EncoderService:
    return EncoderService(tiny_checkpoint)


@pytest.fixture
def settings(tiny_checkpoint: Path) -> ServeSettings:
    return ServeSettings(checkpoint=str(tiny_checkpoint))


@pytest.fixture
def backend(encoder: EncoderService, settings: ServeSettings) -> Iterator[InProcess]:
    decoder = DecoderService(settings.limits, store_size=settings.store_size)
    yield InProcess(decoder, encoder)
    decoder.close()


@pytest.fixture
def client_of(backend: InProcess, settings: ServeSettings) -> Callable[..., TestClient]:
    """Return a function that makes a client with a key, for changed settings or another backend."""

    def make(other: object = None, **changes: object) -> TestClient:
        changed = settings.model_copy(update=changes)
        app = http_app(Gateway(other or backend, changed), KeyRing([hash_key(KEY)]), changed)
        return TestClient(app, headers={"Authorization": f"Bearer {KEY}"})

    return make


@pytest.fixture
def client(client_of: Callable[..., TestClient]) -> TestClient:
    return client_of()
