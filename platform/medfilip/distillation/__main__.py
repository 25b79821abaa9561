"""Training of a student without Ray, in one process or under torchrun; a run that is started again goes on.

::

    python -m medfilip.distillation --data DATA --out FOLDER [--config YAML] [KEY=VALUE ...]
    torchrun --nproc-per-node 2 -m medfilip.distillation --data DATA --out FOLDER [KEY=VALUE ...]

Any number of processes trains the same student; the model is written to ``FOLDER/model``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import load_settings
from medfilip.distillation.settings import DistillSettings

if TYPE_CHECKING:
    from medfilip.distillation.prepare import Prepared
    from medfilip.distillation.train import Run
    from medfilip.model.distributed import World

MODEL, STATE_FOLDER, LOG, PREPARED = "model", "state", "log.jsonl", "prepared"
_USAGE_ERRORS = (ErrorCode.CONFIG_INVALID, ErrorCode.CONFIG_UNKNOWN_KEY, ErrorCode.CONFIG_FILE_UNREADABLE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and return the exit code: 2 for wrong settings, 1 for any other error of ours."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        settings = load_settings(DistillSettings, "distillation", file=options.config, overrides=options.settings)
        from medfilip.model.distributed import process_group

        with process_group() as world:
            _train(options.data, options.out, settings, world)
    except MedfilipError as error:
        sys.stderr.write(f"error [{error.code}] {error}\n")
        return 2 if error.code in _USAGE_ERRORS else 1
    return 0


def _train(data: Path, out: Path, settings: DistillSettings, world: World) -> None:
    import torch

    from medfilip.distillation.card import card_facts, publish_student
    from medfilip.distillation.train import PROGRESS, fit, start_run
    from medfilip.model.distributed import check_same_start

    begun = time.monotonic()
    state = out / STATE_FOLDER / PROGRESS
    check_same_start(state.read_text(encoding="utf-8") if state.is_file() else None, world)
    prepared = _prepare(data, out, settings, world)
    run = start_run(settings, prepared, device="cuda" if torch.cuda.is_available() else "cpu", world=world)
    history: list[Mapping[str, float]] = []

    def report(numbers: Mapping[str, float]) -> None:
        history.append(numbers)
        told = {"seconds": round(time.monotonic() - begun, 1), **{k: round(float(v), 5) for k, v in numbers.items()}}
        with (out / LOG).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(told) + "\n")
        _say("  ".join(f"{name} {value:g}" for name, value in told.items()))

    if world.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        _say(f"{_size(run)}; ready after {time.monotonic() - begun:.0f} s")
    fit(run, out / STATE_FOLDER, report)
    if world.rank == 0:
        refused = run.train.refused + run.validation.refused
        metrics = {name: history[-1][name] for name in ("loss", "validation_loss", "exact")} if history else {}
        name = publish_student(run.model, run.tokenizer, out / MODEL, settings=settings,
                               facts=card_facts(prepared.facts, refused=refused), metrics=metrics)  # fmt: skip
        _say(f"student {name} in {out / MODEL} after {time.monotonic() - begun:.0f} s")


def _prepare(data: Path, out: Path, settings: DistillSettings, world: World) -> Prepared:
    """Return the rows as tokens, from a prepared folder or made here; of several processes one makes them for all."""
    from torch import distributed as dist

    from medfilip.distillation.prepare import load_prepared, prepare_once

    if data.is_dir():
        return load_prepared(data, settings)
    if world.size == 1:
        return prepare_once(settings, data, out / PREPARED)
    if world.rank == 0:
        prepare_once(settings, data, out / PREPARED)
    dist.barrier()
    return load_prepared(out / PREPARED, settings)


def _size(run: Run) -> str:
    from medfilip.distillation.student import count_parameters

    tokens, refused = int(run.train.lengths.sum()), run.train.refused + run.validation.refused
    processes = f", {run.world.size} processes" if run.world.size > 1 else ""
    return (
        f"{len(run.train):,d} rows, {tokens:,d} tokens, {refused:,d} refused as too long; "
        f"{count_parameters(run.model):,d} parameters on {run.device}{processes}"
    )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m medfilip.distillation", description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, metavar="DATA", help="training set, or a prepared folder")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="states, log and the model")
    parser.add_argument("--config", type=Path, metavar="YAML", help="file with settings")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings such as epochs=4")
    return parser


if __name__ == "__main__":
    sys.exit(main())
