"""Text to token ids: word pieces counted from the corpus, or the tokenizer that belongs to a text encoder.

The vocabulary is counted here instead of by the library's trainer, whose ties fall differently in every run: two
equal runs would number their tokens differently. Frequent words become one token each, which small encoders learn
fastest from; a word that is not among them is spelled letter by letter. Either way it is stored as one
``tokenizer.json`` and read without running any code of the model's author.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from medfilip.core.errors import ErrorCode, MedfilipError

_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


class Tokenizer:
    """Encodes texts to padded ids; a text that is too long is cut, never an error.

    Parameters
    ----------
    backend
        A ``tokenizers.Tokenizer``.
    max_tokens
        Length limit, special tokens included.
    """

    def __init__(self, backend: Any, max_tokens: int) -> None:
        self._backend = backend
        self._backend.enable_truncation(max_length=max_tokens)
        pad = next((name for name in ("[PAD]", "<pad>") if backend.token_to_id(name) is not None), None)
        if pad is None:
            raise MedfilipError(
                ErrorCode.CONFIG_INVALID,
                "The tokenizer of the text encoder has no [PAD] or <pad> token.",
                fix="Choose an encoder (BERT-like) text model.",
            )
        self._backend.enable_padding(pad_id=backend.token_to_id(pad), pad_token=pad)

    @classmethod
    def train(cls, texts: Iterable[str], *, vocabulary: int, max_tokens: int) -> Tokenizer:
        """Count word pieces in texts; the same texts give the same tokenizer, whatever their order."""
        normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
        words = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
        letters = sorted({letter for word in words for letter in word} | set(string.ascii_lowercase + string.digits))
        frequent = sorted(words, key=lambda word: (-words[word], word))
        pieces = dict.fromkeys([*_SPECIAL, *letters, *(f"##{letter}" for letter in letters), *frequent])
        numbers = {piece: number for number, piece in enumerate(list(pieces)[:vocabulary])}
        backend = Backend(models.WordPiece(vocab=numbers, unk_token="[UNK]"))  # noqa: S106 - a token of text
        backend.normalizer, backend.pre_tokenizer = normalizer, splitter
        backend.decoder = decoders.WordPiece()
        ends = [(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
        return cls(backend, max_tokens)

    @classmethod
    def of_pretrained(cls, name: str, max_tokens: int) -> Tokenizer:
        """Read the tokenizer that belongs to a Hugging Face text encoder."""
        from transformers import AutoTokenizer

        try:
            loaded = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            return cls(loaded.backend_tokenizer, max_tokens)
        except (OSError, ValueError, AttributeError) as error:
            raise MedfilipError(
                ErrorCode.CONFIG_INVALID,
                f"There is no fast tokenizer for the text encoder '{name}'.",
                fix="Give the name or local path of a text encoder that ships a tokenizer.json.",
            ) from error

    @classmethod
    def from_json(cls, text: str, max_tokens: int) -> Tokenizer:
        """Read the content of a ``tokenizer.json``."""
        return cls(Backend.from_str(text), max_tokens)

    def to_json(self) -> str:
        """Return the content of a ``tokenizer.json``."""
        return str(self._backend.to_str())

    @property
    def size(self) -> int:
        """Number of known tokens."""
        return int(self._backend.get_vocab_size())

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Encode texts.

        Returns
        -------
        ids_TK, mask_TK
            int64; K is the length of the longest text, at most ``max_tokens``; the mask is 0 on padding.
        """
        encoded = self._backend.encode_batch(list(texts))
        ids_TK = torch.tensor([item.ids for item in encoded], dtype=torch.int64)
        mask_TK = torch.tensor([item.attention_mask for item in encoded], dtype=torch.int64)
        return ids_TK, mask_TK
