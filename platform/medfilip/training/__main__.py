"""Training without Ray, in one process or under torchrun; a run that is started again goes on from its folder.

::

    python -m medfilip.training --pairs RUN --images RUN --out FOLDER [--config YAML] [KEY=VALUE ...]
    torchrun --nproc-per-node 2 -m medfilip.training --pairs RUN --images RUN --out FOLDER [KEY=VALUE ...]
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import distributed as dist

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import load_settings
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.model.distributed import World
from medfilip.storage.manifest import run_folder
from medfilip.training.logs import MlflowLog, MlflowSettings
from medfilip.training.loop import fit
from medfilip.training.reporter import LocalReporter
from medfilip.training.settings import TrainSettings
from medfilip.training.sources import check_inputs, load_pairs
from medfilip.training.validation import write_model, zero_shot_metrics

MODEL = "model"
_USAGE_ERRORS = (ErrorCode.CONFIG_INVALID, ErrorCode.CONFIG_UNKNOWN_KEY, ErrorCode.CONFIG_FILE_UNREADABLE)
_SHOWN = ("loss", "validation_loss", "zero_shot_pos_auroc", "zero_shot_pnc_auroc")


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and return the exit code: 2 for wrong settings, 1 for any other error of ours."""
    options = _parser().parse_intermixed_args(arguments)
    try:
        settings = load_settings(TrainSettings, "training", file=options.config, overrides=options.settings)
        with process_group() as world:
            _train(options, settings, world)
    except MedfilipError as error:
        sys.stderr.write(f"error [{error.code}] {error}\n")
        return 2 if error.code in _USAGE_ERRORS else 1
    return 0


@contextmanager
def process_group(environment: Mapping[str, str] = os.environ) -> Iterator[World]:
    """Join the processes that torchrun started, with gloo or, one GPU each, nccl; without torchrun be the only one.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` with more processes on a machine than it has GPUs, if it has any.
    """
    if "TORCHELASTIC_RUN_ID" not in environment:
        yield World.current()
        return
    backend = "gloo"
    if torch.cuda.is_available():
        processes, gpus = int(environment["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
        if processes > gpus:
            raise MedfilipError(
                ErrorCode.CONFIG_INVALID,
                f"--nproc-per-node {processes} is above this machine's {gpus} GPUs; each process takes one.",
                fix=f"Start {gpus} processes, or hide the GPUs with CUDA_VISIBLE_DEVICES= to train on the CPU.",
            )
        torch.cuda.set_device(int(environment["LOCAL_RANK"]))
        backend = "nccl"
    dist.init_process_group(backend)
    try:
        yield World.current()
    finally:
        dist.destroy_process_group()


def _train(options: argparse.Namespace, settings: TrainSettings, world: World) -> None:
    folder, pairs, images = options.out.absolute(), str(run_folder(options.pairs)), str(run_folder(options.images))
    ontology, knowledge = load_ontology(), load_knowledge()
    synthetic = check_inputs(pairs, images, ontology)
    data = load_pairs(pairs, images, settings, ontology=ontology, knowledge=knowledge, synthetic=synthetic)
    validate = partial(zero_shot_metrics, pairs=data.validation, settings=settings, device=_device())
    mlflow = None
    if options.mlflow and world.rank == 0:
        mlflow = MlflowLog(MlflowSettings(tracking_uri=options.mlflow), f"{folder}", settings.model_dump(mode="json"))
    reporter = LocalReporter(
        folder,
        keep=options.keep,
        show=_show if world.rank == 0 else None,
        validate=None if options.no_validation else validate,
        log=mlflow,
    )
    _check_same_start(reporter, world)
    result = fit(settings, data, world, reporter, folder)
    reporter.close()
    if result.folder is not None:
        write_model(result.folder, folder / MODEL, reporter.history[-1])
        sys.stdout.write(f"model {result.fingerprint} in {folder / MODEL}\n")


def _check_same_start(reporter: LocalReporter, world: World) -> None:
    """Refuse processes that see different checkpoints: some would start anew while others go on."""
    if world.size == 1:
        return
    latest = reporter.latest_checkpoint()
    found: list[str | None] = [None] * world.size
    dist.all_gather_object(found, latest.name if latest is not None else None)
    if len(set(found)) > 1:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            "The processes find different checkpoints in --out.",
            fix="Give a folder that all machines share.",
        )


def _show(metrics: Mapping[str, float]) -> None:
    numbers = "  ".join(f"{name} {metrics[name]:.4f}" for name in _SHOWN if name in metrics)
    sys.stdout.write(f"epoch {metrics['epoch']:.2f}  step {metrics['step']:.0f}  {numbers}\n")
    sys.stdout.flush()


def _device() -> str:
    return f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m medfilip.training", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", required=True, metavar="RUN", help="run of an inject job")
    parser.add_argument("--images", required=True, metavar="RUN", help="run of the ingest job its images came from")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="checkpoints, events and the model")
    parser.add_argument("--config", type=Path, metavar="YAML", help="file with settings")
    parser.add_argument("--keep", type=int, default=2, help="checkpoints that stay (default: 2)")
    parser.add_argument("--no-validation", action="store_true", help="no zero-shot diagnosis with each checkpoint")
    parser.add_argument("--mlflow", metavar="URI", help="MLflow server or store that gets the numbers too")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings such as epochs=20")
    return parser


if __name__ == "__main__":
    sys.exit(main())
