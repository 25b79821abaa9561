"""What a student can be made from."""

from __future__ import annotations

from pathlib import Path

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.distillation.base import base_fingerprint, base_folder
from medfilip.distillation.shipped import SHIPPED, SHIPPED_NAME
from medfilip.distillation.student import open_base, open_tokenizer
from medfilip.extraction.prompt import STUDENT_PROMPT


def test_the_extractor_that_ships_is_known_by_its_name() -> None:
    assert base_folder(SHIPPED_NAME) == SHIPPED
    assert base_fingerprint(SHIPPED_NAME) == base_fingerprint(str(SHIPPED))
    model = open_base(SHIPPED_NAME, rank=0, prompt=STUDENT_PROMPT, seed=0)
    assert model.config.vocab_size == len(open_tokenizer(SHIPPED_NAME))


@pytest.mark.parametrize("base", ["folder", "./organisation/model", "/organisation/model/x", "name with spaces/x"])
def test_what_is_neither_a_model_nor_a_name_is_refused(base: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(MedfilipError, match="holds no config") as caught:
        base_folder(str(tmp_path / base) if base == "folder" else base)
    assert caught.value.code is ErrorCode.INPUT_NOT_FOUND


def test_a_name_that_cannot_be_had_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(MedfilipError, match="cannot be had from the Hub"):
        base_folder("organisation/model-that-is-nowhere")
