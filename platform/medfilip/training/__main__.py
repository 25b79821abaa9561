"""Training without Ray, in one process or under torchrun; a run that is started again goes on from its folder.

::

    python -m medfilip.training --pairs RUN --images RUN --out FOLDER [--config YAML] [KEY=VALUE ...]
    torchrun --nproc-per-node 2 -m medfilip.training --pairs RUN --images RUN --out FOLDER [KEY=VALUE ...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import load_settings
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.model.distributed import World, check_same_start, process_group
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
    latest = reporter.latest_checkpoint()
    check_same_start(latest.name if latest is not None else None, world)
    result = fit(settings, data, world, reporter, folder)
    reporter.close()
    if result.folder is not None:
        write_model(result.folder, folder / MODEL, reporter.history[-1])
        sys.stdout.write(f"model {result.fingerprint} in {folder / MODEL}\n")


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
