"""A training set as token ids: ``python -m medfilip.distillation.prepare --data FILE --out FOLDER [KEY=VALUE ...]``.

Training takes a set or such a folder. Where a GPU waits, the folder saves the minute in which a tokenizer is made;
it holds the tokenizer, two ragged arrays of 16 or 32 bits a token, and the validation rows that are replied to. The
rows are read some at a time, the tokens of a loaded folder from the disk as they are needed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint, sha256_file
from medfilip.core.settings import load_settings
from medfilip.distillation.dataset import TRAIN, VALIDATION, Row
from medfilip.distillation.encoding import Encoded, encode
from medfilip.distillation.row_file import RowFile, read_rows, write_rows
from medfilip.distillation.settings import DistillSettings
from medfilip.distillation.student import make_tokenizer, open_tokenizer
from medfilip.extraction.prompt import PromptTemplate, load_prompt

TOKENIZER, ARRAYS, IDS, HELD_OUT, ABOUT = "tokenizer", "{}.npz", "{}.ids", "validation.parquet", "prepared.json"
_TOKENIZER_ROWS = 200_000


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


def prepare(
    settings: DistillSettings,
    rows: Iterable[Row],
    facts: Mapping[str, str],
    *,
    data: str,
    folder: Path | None = None,
) -> Prepared:
    """Make or open the tokenizer, and encode the rows.

    Parameters
    ----------
    rows
        A list, or a file that can be read several times.
    data
        Fingerprint of the rows.
    folder
        Where the tokens are written, and then read from as they are needed; by default they stay in memory.

    Raises
    ------
    MedfilipError
        ``NOT_ENOUGH_DATA`` without rows to train on, or to validate with, that fit the context.
    """
    prompt = load_prompt(settings.prompt)
    if settings.base:
        tokenizer = open_tokenizer(settings.base)
    else:
        first = islice(_of(rows, TRAIN), _TOKENIZER_ROWS)
        tokenizer = make_tokenizer(_texts(first, prompt), settings.student.vocabulary)
    held_out = list(islice(_of(rows, VALIDATION), settings.validation_rows))
    train, validation = (
        encode(tokenizer, prompt, part, longest=settings.context, file=folder / IDS.format(name) if folder else None)
        for name, part in ((TRAIN, _of(rows, TRAIN)), (VALIDATION, held_out))
    )
    for name, part in ((TRAIN, train), (VALIDATION, validation)):
        if not len(part):
            raise MedfilipError(
                ErrorCode.NOT_ENOUGH_DATA,
                f"No row of the split '{name}' fits {settings.context} tokens ({part.refused} are longer).",
                fix="Give more data, or a longer context.",
            )
    key = fingerprint([data, _decided(settings)])
    return Prepared(tokenizer, train, validation, held_out, key, {**facts, "data": data})


def prepare_once(settings: DistillSettings, file: Path, folder: Path) -> Prepared:
    """Prepare a training set in a folder, or load what was prepared there of the same set with the same settings.

    A tokenizer that is made twice might differ, and the weights of an earlier start would not fit it.
    """
    data, about = sha256_file(file), folder / ABOUT
    if about.is_file():
        if json.loads(about.read_text(encoding="utf-8"))["key"] == fingerprint([data, _decided(settings)]):
            return load_prepared(folder, settings)
        about.unlink()
    rows = RowFile(file)
    prepared = prepare(settings, rows, rows.facts, data=data, folder=folder)
    save_prepared(prepared, folder)
    return prepared


def save_prepared(prepared: Prepared, folder: Path) -> None:
    """Write a folder that `load_prepared` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    prepared.tokenizer.save_pretrained(folder / TOKENIZER)
    for name, part in ((TRAIN, prepared.train), (VALIDATION, prepared.validation)):
        file = folder / IDS.format(name)
        if not (isinstance(part.ids, np.memmap) and str(part.ids.filename) == str(file.resolve())):
            part.ids.tofile(file)
        np.savez_compressed(
            folder / ARRAYS.format(name),
            kind=np.array(part.ids.dtype.str),
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
    train, validation = (_load(folder, name) for name in (TRAIN, VALIDATION))
    held_out, _ = read_rows(folder / HELD_OUT)
    tokenizer = AutoTokenizer.from_pretrained(folder / TOKENIZER)
    return Prepared(tokenizer, train, validation, held_out, about["key"], about["facts"])


def _load(folder: Path, name: str) -> Encoded:
    with np.load(folder / ARRAYS.format(name)) as arrays:
        starts = np.concatenate([[0], np.cumsum(arrays["lengths"].astype(np.int64))])
        ids = np.memmap((folder / IDS.format(name)).resolve(), np.dtype(str(arrays["kind"])), mode="r")
        return Encoded(ids, starts.astype(np.int64), arrays["prompts"].astype(np.int32), int(arrays["refused"]))


def _of(rows: Iterable[Row], split: str) -> Iterator[Row]:
    return (row for row in rows if row.split == split)


def _decided(settings: DistillSettings) -> list[object]:
    """Return what decides the ids beside the data."""
    vocabulary = 0 if settings.base else settings.student.vocabulary
    prompt = load_prompt(settings.prompt).fingerprint
    return [vocabulary, Path(settings.base).name, prompt, settings.context, settings.validation_rows]


def _texts(rows: Iterable[Row], prompt: PromptTemplate) -> Iterator[str]:
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
        rows = RowFile(options.data)
        prepared = prepare(settings, rows, rows.facts, data=sha256_file(options.data), folder=options.out)
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
