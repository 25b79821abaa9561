"""The tokenizer: repeatable, safe in length, and complete in one JSON file."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models

from medfilip import ErrorCode, MedfilipError
from medfilip.model.tokenizer import Tokenizer

TEXTS = ["left pleural effusion", "no pleural effusion", "nodule in the upper lobe"]


def trained(max_tokens=8):
    return Tokenizer.train(TEXTS, vocabulary=120, max_tokens=max_tokens)


def test_known_words_keep_their_identity():
    ids, mask = trained().encode(["Left effusion", "no effusion", "left"])
    assert ids[0, 2] == ids[1, 2] and ids[0, 1] == ids[2, 1] != ids[1, 1]
    assert mask.sum(dim=1).tolist() == [4, 4, 3]


@pytest.mark.parametrize("text", ["pleural effusion " * 500, "", "\u0000 ☃ " * 50])
def test_any_text_fits(text):
    ids, mask = trained().encode([text])
    assert ids.shape == mask.shape and ids.shape[1] <= 8


def test_the_same_texts_give_the_same_tokenizer_and_json_keeps_it():
    shuffled = Tokenizer.train(TEXTS[::-1], vocabulary=120, max_tokens=8)
    assert trained().to_json() == shuffled.to_json()
    again = Tokenizer.from_json(trained().to_json(), max_tokens=8)
    for a, b in zip(trained().encode(TEXTS), again.encode(TEXTS), strict=True):
        assert torch.equal(a, b)
    assert again.size == trained().size


def test_a_tokenizer_without_padding_is_refused():
    with pytest.raises(MedfilipError) as caught:
        Tokenizer(Backend(models.BPE()), 8)
    assert caught.value.code == ErrorCode.CONFIG_INVALID


def test_an_unknown_text_encoder_is_a_clear_error():
    with pytest.raises(MedfilipError, match="/nowhere/encoder"):
        Tokenizer.of_pretrained("/nowhere/encoder", 8)


def test_a_word_outside_the_vocabulary_is_spelled():
    ids, mask = trained(32).encode(["pneumothorax"])
    assert mask.sum() > 3 and (ids != 1).all()


def test_a_text_that_is_too_long_loses_phrases_not_half_of_one():
    tokenizer = Tokenizer.train(["no left effusion. dense white lung, fluffy edges, air bronchograms"], vocabulary=300,
                                max_tokens=10)  # fmt: skip
    long = "no left effusion. dense white lung, fluffy edges, air bronchograms"
    assert torch.equal(tokenizer.encode([long])[0], tokenizer.encode(["no left effusion. dense white lung"])[0])
    assert tokenizer.encode(["effusion " * 50])[0].shape[1] <= 10


def test_tokens_hold_each_text_once_and_widths_are_multiples():
    tokenizer = Tokenizer.train(["nodule mass effusion"], vocabulary=100, max_tokens=16)
    tokens = tokenizer.tokens(["mass", "nodule effusion", "mass"], multiple=8)
    assert tokens.ids_UK.shape == (2, 8) and tokens.position_T.tolist() == [0, 1, 0]
    assert tokens.mask_UK.sum(dim=1).tolist() == [3, 4]
    assert tokenizer.encode([])[0].shape == (0, 1)
