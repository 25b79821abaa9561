"""Decoder and encoder: the numbers of the library, and refusals as values."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from medfilip.core.errors import ErrorCode
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.preprocess import to_model, to_store
from medfilip.imaging.reader import read_image
from medfilip.model.diagnoser import Diagnoser
from medfilip.model.question import Question
from serve.decoding import DecoderService
from serve.encoding import EncoderService
from serve.messages import Decoded, Refused, Told, refusing


def test_the_parts_give_the_numbers_of_the_library(
    tiny_checkpoint: Path, encoder: EncoderService, phantom_dicom: bytes
) -> None:
    decoder = DecoderService(ImageLimits(), store_size=1024)
    decoded = decoder.decode(phantom_dicom, 32)
    assert isinstance(decoded, Decoded) and decoded.pixels.dtype == np.float32
    [embedding] = encoder.embed([decoded.pixels])
    labels = ("nodule", "left pleural effusion")
    assert not isinstance(embedding, Refused)
    scored = encoder.answer(Question(labels), [embedding], [decoded])
    assert isinstance(scored, Told)
    assert scored.card.fingerprint == encoder.card().fingerprint and set(scored.seconds) == {"labels", "answer"}
    scored = scored.answered

    diagnoser = Diagnoser.load(tiny_checkpoint)
    pixels = to_model(to_store(read_image(phantom_dicom, ImageLimits()).pixels), 32)
    bank = diagnoser.encode_labels(labels)
    scores = diagnoser.score(diagnoser.encode_images(pixels[None]), bank)
    assert [finding.probability for finding in scored.findings] == pytest.approx(scores.probability_NL[0], abs=1e-6)
    assert [finding.positive_score for finding in scored.findings] == pytest.approx(scores.positive_NL[0], abs=1e-5)
    assert scored.label_set == bank.fingerprint


def test_one_misfit_leaves_the_batch_alone(encoder: EncoderService) -> None:
    good, bad = np.zeros((1, 32, 32), np.float32), np.zeros((1, 48, 48), np.float32)
    first, wrong, second = encoder.embed([good, bad, good])
    assert isinstance(wrong, Refused) and wrong.code == ErrorCode.MODEL_CHANGED
    assert not isinstance(first, Refused) and not isinstance(second, Refused)
    np.testing.assert_allclose(first, second)
    assert encoder.embed([]) == []


def test_refusals_keep_code_and_lose_foreign_words(caplog: pytest.LogCaptureFixture) -> None:
    decoder = DecoderService(ImageLimits(), store_size=1024)
    refused = decoder.decode(b"\x89PNG\r\n\x1a\nPATIENT^NAME", 32)
    decoder.close()
    assert isinstance(refused, Refused) and refused.code == ErrorCode.IMAGE_UNDECODABLE
    assert pickle.loads(pickle.dumps(refused)).error().code == refused.code

    def fail() -> None:
        raise ValueError("PATIENT^NAME")

    told = refusing(fail)
    assert isinstance(told, Refused) and told.code == ErrorCode.INTERNAL
    assert "PATIENT" not in told.message + told.fix + caplog.text and "test_parts.py" in caplog.text


def test_label_sets_are_embedded_once(
    encoder: EncoderService, monkeypatch: pytest.MonkeyPatch, phantom_dicom: bytes
) -> None:
    decoder = DecoderService(ImageLimits(), store_size=1024)
    decoded = decoder.decode(phantom_dicom, 32)
    assert isinstance(decoded, Decoded)
    [embedding] = encoder.embed([decoded.pixels])
    assert not isinstance(embedding, Refused)
    question = Question(("mass", "nodule"))
    first = encoder.answer(question, [embedding], [decoded])
    assert isinstance(first, Told)
    monkeypatch.setattr(Diagnoser, "encode_labels", None)
    again = encoder.answer(question, [embedding], [decoded])
    assert isinstance(again, Told) and again.answered == first.answered
