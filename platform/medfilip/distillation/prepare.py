"""A training set as token ids: ``python -m medfilip.distillation.prepare --data FILE --out FOLDER [KEY=VALUE ...]``.

Training takes a set or such a folder. Where a GPU waits, the folder saves the minute in which a tokenizer is made;
it holds the tokenizer, two ragged arrays of 16 or 32 bits a token, and the validation rows that are replied to.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint, sha256_file
from medfilip.core.settings import load_settings
from medfilip.distillation.dataset import TRAIN, VALIDATION, Row, read_rows, write_rows
from medfilip.distillation.encoding import Encoded, encode
from medfilip.distillation.settings import DistillSettings
from medfilip.distillation.student import make_tokenizer, open_tokenizer
from medfilip.extraction.prompt import PromptTemplate, load_prompt

TOKENIZER, ARRAYS, HELD_OUT, ABOUT = "tokenizer", "{}.npz", "validation.parquet", "prepared.json"
_TOKENIZER_ROWS = 200_000
_SMALL = 1 << 16


@dataclass(frozen=True)
class Prepared:
    """What training starts from.

    Attributes
    ----------
    key
        Fingerprint of the data and of the settings that decided the ids.
    facts
        Of the training set.
    """

    tokenizer: Any
    train: Encoded
    validation: Encoded
    held_out: list[Row]
    key: str
    facts: Mapping[str, str]


def prepare(settings: DistillSettings, rows: Sequence[Row], facts: Mapping[str, str], *, data: str) -> Prepared:
    """Make or open the tokenizer, and encode the rows.

    Parameters
    ----------
    data
        Fingerprint of the rows.

    Raises
    ------
    MedfilipError
        ``NOT_ENOUGH_DATA`` without rows to train on, or to validate with, that fit the context.
    """
    train_rows = [row for row in rows if row.split == TRAIN]
    held_out = [row for row in rows if row.split == VALIDATION][: settings.validation_rows]
    prompt = load_prompt(settings.prompt)
    if settings.base:
        tokenizer = open_tokenizer(settings.base)
    else:
        tokenizer = make_tokenizer(_texts(train_rows[:_TOKENIZER_ROWS], prompt), settings.student.vocabulary)
    train, validation = (encode(tokenizer, prompt, part, longest=settings.context) for part in (train_rows, held_out))
    for name, part in ((TRAIN, train), (VALIDATION, validation)):
        if not len(part):
            raise MedfilipError(
                ErrorCode.NOT_ENOUGH_DATA,
                f"No row of the split '{name}' fits {settings.context} tokens ({part.refused} are longer).",
                fix="Give more data, or a longer context.",
            )
    key = fingerprint([data, _decided(settings)])
    return Prepared(tokenizer, train, validation, held_out, key, {**facts, "data": data})


def save_prepared(prepared: Prepared, folder: Path) -> None:
    """Write a folder that `load_prepared` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    prepared.tokenizer.save_pretrained(folder / TOKENIZER)
    for name, part in ((TRAIN, prepared.train), (VALIDATION, prepared.validation)):
        kind = np.uint16 if len(part.ids) and int(part.ids.max()) < _SMALL else np.int32
        np.savez_compressed(
            folder / ARRAYS.format(name),
            ids=part.ids.astype(kind),
            lengths=part.lengths.astype(np.uint16),
            prompts=part.prompts_N.astype(np.uint16),
            refused=np.array(part.refused),
        )
    write_rows(prepared.held_out, folder / HELD_OUT, {})
    about = {"key": prepared.key, "facts": dict(prepared.facts)}
    (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def load_prepared(folder: Path, settings: DistillSettings) -> Prepared:
    """Read a prepared folder.

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND`` if it is none; ``CONFIG_INVALID`` if other settings decided its ids.
    """
    from transformers import AutoTokenizer

    if not (folder / ABOUT).is_file():
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND,
            f"The folder {folder} holds no {ABOUT}.",
            fix="Give a training set, or a folder that medfilip.distillation.prepare wrote.",
        )
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    if about["key"] != fingerprint([about["facts"]["data"], _decided(settings)]):
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"The folder {folder} was prepared with another vocabulary, base, prompt, context or validation_rows.",
            fix="Give the settings that it was prepared with, or prepare it again.",
        )
    train, validation = (_load(folder / ARRAYS.format(name)) for name in (TRAIN, VALIDATION))
    held_out, _ = read_rows(folder / HELD_OUT)
    tokenizer = AutoTokenizer.from_pretrained(folder / TOKENIZER)
    return Prepared(tokenizer, train, validation, held_out, about["key"], about["facts"])


def _load(file: Path) -> Encoded:
    with np.load(file) as arrays:
        starts = np.concatenate([[0], np.cumsum(arrays["lengths"].astype(np.int64))])
        ids, prompts = arrays["ids"].astype(np.int32), arrays["prompts"].astype(np.int32)
        return Encoded(ids, starts.astype(np.int64), prompts, int(arrays["refused"]))


def _decided(settings: DistillSettings) -> list[object]:
    """Return what decides the ids beside the data."""
    vocabulary = 0 if settings.base else settings.student.vocabulary
    prompt = load_prompt(settings.prompt).fingerprint
    return [vocabulary, Path(settings.base).name, prompt, settings.context, settings.validation_rows]


def _texts(rows: Sequence[Row], prompt: PromptTemplate) -> Iterator[str]:
    for row in rows:
        yield prompt.messages(row.text, row.context)[-1]["content"]
        yield row.reply


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare a folder."""
    parser = argparse.ArgumentParser(
        prog="python -m medfilip.distillation.prepare", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--data", required=True, type=Path, metavar="FILE", help="training set")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings of the training")
    options = parser.parse_intermixed_args(arguments)
    try:
        settings = load_settings(DistillSettings, "distillation", overrides=options.settings)
        rows, facts = read_rows(options.data)
        prepared = prepare(settings, rows, facts, data=sha256_file(options.data))
    except MedfilipError as error:
        sys.stderr.write(f"error [{error.code}] {error}\n")
        return 1
    save_prepared(prepared, options.out)
    tokens = int(prepared.train.lengths.sum())
    sys.stdout.write(
        f"{len(prepared.train):,d} rows, {tokens:,d} tokens, the longest {int(prepared.train.lengths.max())}; "
        f"{prepared.train.refused:,d} refused as too long\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
