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
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.knowledge.inject import fit_text

_REMEMBERED = 200_000
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]


@dataclass(frozen=True)
class Tokens:
    """Texts as token ids, each distinct text once.

    Attributes
    ----------
    ids_UK, mask_UK
        int64; the mask is 0 on padding.
    position_T
        int64, the row of each text.
    """

    ids_UK: Tensor
    mask_UK: Tensor
    position_T: Tensor

    def to(self, device: torch.device | str) -> Tokens:
        """Move all three to a device."""
        moved = (value.to(device, non_blocking=True) for value in (self.ids_UK, self.mask_UK, self.position_T))
        return Tokens(*moved)


class Tokenizer:
    """Encodes texts to padded ids; a text that is too long loses phrases from its end, never an error.

    Parameters
    ----------
    backend
        A ``tokenizers.Tokenizer``.
    max_tokens
        Length limit, special tokens included.

    Attributes
    ----------
    pad
        The token that fills rows up.
    """

    def __init__(self, backend: Any, max_tokens: int) -> None:
        self._backend, self.max_tokens = backend, max_tokens
        self._backend.enable_truncation(max_length=max_tokens)
        # Many tokenizer.json pad by themselves, and the mask would take their padding for words.
        self._backend.no_padding()
        pad = next((name for name in ("[PAD]", "<pad>") if backend.token_to_id(name) is not None), None)
        if pad is None:
            raise MedfilipError(
                ErrorCode.CONFIG_INVALID,
                "The tokenizer of the text encoder has no [PAD] or <pad> token.",
                fix="Choose an encoder (BERT-like) text model.",
            )
        self.pad, self._pad = pad, int(backend.token_to_id(pad))
        self._ids: dict[str, list[int]] = {}

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

    def copy_of_backend(self) -> Any:
        """Return a ``tokenizers.Tokenizer`` that neither cuts nor pads by itself."""
        copied = Backend.from_str(self.to_json())
        copied.no_truncation()
        return copied

    @property
    def size(self) -> int:
        """Number of known tokens."""
        return int(self._backend.get_vocab_size())

    def encode(self, texts: Sequence[str], *, multiple: int = 1) -> tuple[Tensor, Tensor]:
        """Encode texts.

        Parameters
        ----------
        texts
            Any number of them.
        multiple
            Pad to a multiple of this length: compiled encoders and matrix units like few different shapes.

        Returns
        -------
        ids_TK, mask_TK
            int64; K is the length of the longest text, at most ``max_tokens``; the mask is 0 on padding.
        """
        rows = self._rows(texts)
        longest = max(map(len, rows), default=1)
        width = min(-(-longest // multiple) * multiple, max(self.max_tokens, longest))
        ids_TK = torch.full((len(rows), width), self._pad, dtype=torch.int64)
        flat = torch.tensor([number for row in rows for number in row], dtype=torch.int64)
        mask_TK = (torch.arange(width) < torch.tensor([len(row) for row in rows])[:, None]).to(torch.int64)
        ids_TK[mask_TK.to(torch.bool)] = flat
        return ids_TK, mask_TK

    def tokens(self, texts: Sequence[str], *, multiple: int = 1) -> Tokens:
        """Encode the distinct ones of some texts, in the order of their first appearance."""
        position = {text: at for at, text in enumerate(dict.fromkeys(texts))}
        ids_UK, mask_UK = self.encode(list(position), multiple=multiple)
        return Tokens(ids_UK, mask_UK, torch.tensor([position[text] for text in texts], dtype=torch.int64))

    def _count(self, text: str) -> int:
        """Count the tokens of a text that is not cut."""
        encoding = self._backend.encode(text)
        return len(encoding.ids) + sum(len(rest.ids) for rest in encoding.overflowing)

    def _rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Look texts up among those encoded before; training meets the same ones in every epoch."""
        new = [text for text in dict.fromkeys(texts) if text not in self._ids]
        if len(self._ids) + len(new) > _REMEMBERED:
            self._ids.clear()
            new = list(dict.fromkeys(texts))
        fitting = [fit_text(text, self._count, self.max_tokens) for text in new]
        self._ids.update(zip(new, (item.ids for item in self._backend.encode_batch(fitting)), strict=True))
        return [self._ids[text] for text in texts]
