"""Rows as token ids: prompt and answer as the chat template joins them, ragged arrays, and the order of batches.

Legend of tensor names: N rows, T tokens of a padded row, B rows of a batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
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
_CHUNK = 8_192
_SMALL = 1 << 16
_SENTINEL = "\x00sentence\x00"
_UNSIGNED = (1 << 64) - 1


@dataclass(frozen=True)
class Encoded:
    """Token ids of rows.

    Attributes
    ----------
    ids
        All rows behind one another, 16 or 32 bits each; a map of a file if there are many.
    starts_N1
        Where each row starts in ``ids``, and where the last one ends.
    prompts_N
        Tokens of each row that are its prompt.
    refused
        Rows that were longer than the context and are not here.
    """

    ids: NDArray[Any]
    starts_N1: NDArray[np.int64]
    prompts_N: NDArray[np.int32]
    refused: int

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each row."""
        return np.diff(self.starts_N1)

    def lengths_of(self, rows_B: NDArray[np.int64]) -> NDArray[np.int64]:
        """Tokens of some rows."""
        return self.starts_N1[rows_B + 1] - self.starts_N1[rows_B]

    def __len__(self) -> int:
        return len(self.prompts_N)

    def batch(self, rows_B: NDArray[np.int64], padding: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return ``ids_BT``, padded on the right, and ``targets_BT``: the token that follows, of answers alone."""
        longest = int(self.lengths_of(rows_B).max())
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


def encode(
    tokenizer: Any, prompt: PromptTemplate, rows: Iterable[Row], *, longest: int, file: Path | None = None
) -> Encoded:
    """Encode rows as prompt, answer and end; a row above ``longest`` tokens is refused and counted, never cut.

    Parameters
    ----------
    file
        Where the tokens are written, in place of memory.
    """
    kind = np.dtype("<u2") if len(tokenizer) <= _SMALL else np.dtype("<i4")
    pieces: list[NDArray[Any]] = []
    lengths, prompts, refused = [np.zeros(1, np.int64)], [np.zeros(0, np.int32)], 0
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    left = iter(rows)
    while part := list(islice(left, _CHUNK)):
        ids, widths, starts = _encode_part(tokenizer, prompt, part, longest, kind)
        refused += len(part) - len(widths)
        lengths.append(widths)
        prompts.append(starts)
        if file is None:
            pieces.append(ids)
        else:
            with file.open("ab") as stream:
                ids.tofile(stream)
    starts_N1 = np.cumsum(np.concatenate(lengths))
    if file is not None and starts_N1[-1]:
        flat: NDArray[Any] = np.memmap(file.resolve(), kind, mode="r")
    else:
        flat = np.concatenate([np.zeros(0, kind), *pieces])
    return Encoded(flat, starts_N1, np.concatenate(prompts), refused)


def _encode_part(
    tokenizer: Any, prompt: PromptTemplate, rows: Sequence[Row], longest: int, kind: np.dtype[Any]
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int32]]:
    """Return the tokens of the rows that fit, their lengths, and the lengths of their prompts."""
    end = tokenizer.eos_token_id
    asked = _encode_texts(tokenizer, list(prompt_texts(tokenizer, prompt, [(r.text, r.context) for r in rows])))
    answered = _encode_texts(tokenizer, [row.reply for row in rows])
    pairs = zip(asked, answered, strict=True)
    fitting = [(question, answer) for question, answer in pairs if len(question) + len(answer) + 1 <= longest]
    ids = [np.array([*question, *answer, end], kind) for question, answer in fitting]
    widths = np.array([len(one) for one in ids], np.int64)
    flat = np.concatenate(ids) if ids else np.zeros(0, kind)
    return flat, widths, np.array([len(question) for question, _ in fitting], np.int32)


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
