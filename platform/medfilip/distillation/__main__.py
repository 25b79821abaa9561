"""Training of a student: ``python -m medfilip.distillation --data DATA --out FOLDER [--config YAML] [KEY=VALUE ...]``.

A run that is started again goes on from its last state; the model is written to ``FOLDER/model``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import load_settings
from medfilip.distillation.settings import DistillSettings

MODEL, STATE_FOLDER, LOG = "model", "state", "log.jsonl"
_USAGE_ERRORS = (ErrorCode.CONFIG_INVALID, ErrorCode.CONFIG_UNKNOWN_KEY, ErrorCode.CONFIG_FILE_UNREADABLE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and return the exit code: 2 for wrong settings, 1 for any other error of ours."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        settings = load_settings(DistillSettings, "distillation", file=options.config, overrides=options.settings)
        _train(options.data, options.out, settings)
    except MedfilipError as error:
        sys.stderr.write(f"error [{error.code}] {error}\n")
        return 2 if error.code in _USAGE_ERRORS else 1
    return 0


def _train(data: Path, out: Path, settings: DistillSettings) -> None:
    import torch

    from medfilip.core.fingerprint import sha256_file
    from medfilip.distillation.card import card_facts, publish_student
    from medfilip.distillation.dataset import read_rows
    from medfilip.distillation.prepare import load_prepared, prepare
    from medfilip.distillation.student import count_parameters
    from medfilip.distillation.train import fit, start_run

    begun = time.monotonic()
    if data.is_dir():
        prepared = load_prepared(data, settings)
    else:
        rows, facts = read_rows(data)
        prepared = prepare(settings, rows, facts, data=sha256_file(data))
    run = start_run(settings, prepared, device="cuda" if torch.cuda.is_available() else "cpu")
    tokens, refused = int(run.train.lengths.sum()), run.train.refused + run.validation.refused
    sys.stdout.write(
        f"{len(run.train):,d} rows, {tokens:,d} tokens, {refused:,d} refused as too long; "
        f"{count_parameters(run.model):,d} parameters on {run.device}; ready after {time.monotonic() - begun:.0f} s\n"
    )
    sys.stdout.flush()
    out.mkdir(parents=True, exist_ok=True)
    history: list[Mapping[str, float]] = []

    def report(numbers: Mapping[str, float]) -> None:
        history.append(numbers)
        told = {"seconds": round(time.monotonic() - begun, 1), **{k: round(float(v), 5) for k, v in numbers.items()}}
        with (out / LOG).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(told) + "\n")
        sys.stdout.write("  ".join(f"{name} {value:g}" for name, value in told.items()) + "\n")
        sys.stdout.flush()

    fit(run, out / STATE_FOLDER, report)
    metrics = {name: history[-1][name] for name in ("loss", "validation_loss", "exact")} if history else {}
    name = publish_student(run.model, run.tokenizer, out / MODEL, settings=settings,
                           facts=card_facts(prepared.facts, refused=refused), metrics=metrics)  # fmt: skip
    sys.stdout.write(f"student {name} in {out / MODEL} after {time.monotonic() - begun:.0f} s\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m medfilip.distillation", description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, metavar="DATA", help="training set, or a prepared folder")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="states, log and the model")
    parser.add_argument("--config", type=Path, metavar="YAML", help="file with settings")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings such as epochs=4")
    return parser


if __name__ == "__main__":
    sys.exit(main())
