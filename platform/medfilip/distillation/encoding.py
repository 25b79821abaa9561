"""Rows as token ids: prompt and answer as the chat template joins them, ragged arrays, and the order of batches.

Legend of tensor names: N rows, T tokens of a padded row, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.ids import hash64
from medfilip.distillation.dataset import Row
from medfilip.extraction.prompt import PromptTemplate

IGNORED = -100
"""Target of a token that the loss does not count."""

_PADDED_TO = 16
_CHUNK = 50_000
_SENTINEL = "\x00sentence\x00"
_UNSIGNED = (1 << 64) - 1


@dataclass(frozen=True)
class Encoded:
    """Token ids of rows.

    Attributes
    ----------
    ids
        All rows behind one another.
    starts_N1
        Where each row starts in ``ids``, and where the last one ends.
    prompts_N
        Tokens of each row that are its prompt.
    refused
        Rows that were longer than the context and are not here.
    """

    ids: NDArray[np.int32]
    starts_N1: NDArray[np.int64]
    prompts_N: NDArray[np.int32]
    refused: int

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        return np.diff(self.starts_N1)

    def __len__(self) -> int:
        return len(self.prompts_N)

    def batch(self, rows_B: NDArray[np.int64], padding: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return ``ids_BT``, padded on the right, and ``targets_BT``: the token that follows, of answers alone."""
        longest = int(self.lengths[rows_B].max())
        width = -(-longest // _PADDED_TO) * _PADDED_TO
        ids_BT = np.full((len(rows_B), width), padding, np.int64)
        targets_BT = np.full((len(rows_B), width), IGNORED, np.int64)
        for at, row in enumerate(rows_B):
            tokens = self.ids[self.starts_N1[row] : self.starts_N1[row + 1]]
            prompt = int(self.prompts_N[row])
            ids_BT[at, : len(tokens)] = tokens
            targets_BT[at, prompt - 1 : len(tokens) - 1] = tokens[prompt:]
        return ids_BT, targets_BT


def chat_frame(tokenizer: Any, prompt: PromptTemplate) -> tuple[str, str]:
    """Return what a chat template puts before and behind the frame of a sentence.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` for a template that changes the text it is given.
    """
    messages = prompt.messages("", None)
    messages[-1] = {"role": "user", "content": _SENTINEL}
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    before, found, behind = text.partition(_SENTINEL)
    if not found:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            "The model's chat template changes the text of a message.",
            fix="Use a model whose template passes the content of a message on as it is.",
        )
    return before, behind


def prompt_texts(tokenizer: Any, prompt: PromptTemplate, sentences: Sequence[tuple[str, str | None]]) -> Iterator[str]:
    """Yield the whole prompt of each sentence with its context, as an engine with this chat template builds it."""
    before, behind = chat_frame(tokenizer, prompt)
    for text, context in sentences:
        yield f"{before}{prompt.messages(text, context)[-1]['content']}{behind}"


def encode(tokenizer: Any, prompt: PromptTemplate, rows: Sequence[Row], *, longest: int) -> Encoded:
    """Encode rows as prompt, answer and end; a row above ``longest`` tokens is refused and counted, never cut."""
    end = tokenizer.eos_token_id
    ids: list[NDArray[np.int32]] = []
    prompts: list[int] = []
    refused = 0
    for start in range(0, len(rows), _CHUNK):
        part = rows[start : start + _CHUNK]
        asked = _encode_texts(tokenizer, list(prompt_texts(tokenizer, prompt, [(r.text, r.context) for r in part])))
        answered = _encode_texts(tokenizer, [row.reply for row in part])
        for question, answer in zip(asked, answered, strict=True):
            if len(question) + len(answer) + 1 > longest:
                refused += 1
                continue
            ids.append(np.array([*question, *answer, end], np.int32))
            prompts.append(len(question))
    starts = np.concatenate([[0], np.cumsum([len(row) for row in ids])]).astype(np.int64)
    flat = np.concatenate(ids) if ids else np.zeros(0, np.int32)
    return Encoded(flat, starts, np.array(prompts, np.int32), refused)


def _encode_texts(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is not None:
        return [one.ids for one in fast.encode_batch(texts, add_special_tokens=False)]
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


def epoch_batches(lengths_N: NDArray[np.int64], batch_tokens: int, *, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Return the batches of an epoch, a pure function of its arguments.

    Rows are shuffled, sorted by length within windows of some 64 batches, cut where a padded batch would hold more than
    ``batch_tokens`` tokens, and the batches are shuffled.
    """
    generator = np.random.default_rng(hash64("student order", str(seed), str(epoch)) & _UNSIGNED)
    order = generator.permutation(len(lengths_N))
    mean = max(1.0, float(lengths_N.mean()) if len(lengths_N) else 1.0)
    window = max(1, int(64 * batch_tokens / mean))
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(order), window):
        rows = order[start : start + window]
        rows = rows[np.argsort(lengths_N[rows], kind="stable")]
        widths = -(-lengths_N[rows] // _PADDED_TO) * _PADDED_TO
        begin = 0
        while begin < len(rows):
            # Lengths ascend: the last row of a batch decides its width.
            sizes = np.arange(1, len(rows) - begin + 1) * widths[begin:]
            count = max(1, int(np.searchsorted(sizes, batch_tokens, side="right")))
            batches.append(np.sort(rows[begin : begin + count]))
            begin += count
    generator.shuffle(batches)
    return batches
