"""What benchmarks of whole training runs share: configurations from a file, a run without Ray, results as they come."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medfilip.core.settings import load_settings
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.model.diagnoser import Diagnoser
from medfilip.model.distributed import World
from medfilip.training.loop import fit
from medfilip.training.pairs import Columns
from medfilip.training.reporter import LocalReporter
from medfilip.training.settings import TrainSettings
from medfilip.training.sources import load_pairs
from tests.benchmarks.environment import environment


@dataclass(frozen=True)
class Trained:
    """A finished run: its settings, its model, and how long it took from the first byte read."""

    settings: TrainSettings
    diagnoser: Diagnoser
    seconds: float
    studies: int
    metrics: dict[str, float]


def newest(root: Path, job: str) -> Path:
    """Return the newest published run of a job below a root folder."""
    return max(root.glob(f"{job}-*/*/manifest.json"), key=lambda file: file.stat().st_mtime).parent


def train(root: Path, changes: Mapping[str, Any], threads: int, *, synthetic: bool, mixed: bool = False) -> Trained:
    """Train on the newest inject and ingest runs of a root folder; ``mixed`` tells each study the report of another."""
    torch.set_num_threads(threads)
    overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    settings = load_settings(TrainSettings, "train", overrides=overrides, environment={})
    begun = time.perf_counter()
    data = load_pairs(
        str(newest(root, "inject")), str(newest(root, "ingest")), settings,
        ontology=load_ontology(), knowledge=load_knowledge(), synthetic=synthetic,
    )  # fmt: skip
    if mixed:
        data.train.columns = _mixed(data.train.columns)
    with tempfile.TemporaryDirectory() as folder:
        result = fit(settings, data, World(), LocalReporter(Path(folder)), Path(folder))
        seconds = time.perf_counter() - begun
        device = "cuda" if torch.cuda.is_available() else "cpu"
        diagnoser = Diagnoser.load(result.folder, device)
    return Trained(settings, diagnoser, seconds, len(data.train), result.metrics)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which configurations are run, how, and where results go."""
    parser.add_argument("--configurations", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)


def read_configurations(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """Read one JSON object a line: a name, and the settings beside it."""
    lines = [json.loads(text) for text in file.read_text().splitlines() if text.strip()]
    return [(item.pop("name"), item) for item in lines]


def run_all(
    work: Callable[[Any], dict[str, Any]], jobs: Iterable[Any], chosen: argparse.Namespace,
    line: Callable[[dict[str, Any]], str], **beside: Any,
) -> None:  # fmt: skip
    """Run all jobs; print a line and write the results so far after each."""
    results = []
    several = chosen.processes > 1
    with ProcessPoolExecutor(chosen.processes, get_context("spawn")) if several else nullcontext() as pool:
        for result in (pool.map if pool is not None else map)(work, jobs):
            results.append(result)
            print(line(result), flush=True)
            chosen.out.write_text(json.dumps({"environment": environment(), **beside, "results": results}, indent=1))


def interval(item: Mapping[str, float]) -> str:
    """Write a value with its interval."""
    return f"{item['value']:.3f} [{item['low']:.3f}, {item['high']:.3f}]"


def statistics(pixels_N1SS: np.ndarray) -> np.ndarray:
    """Mean, deviation and nine quantiles of the grey values: what is left of an image without its places; [N, 11]."""
    flat = pixels_N1SS.reshape(len(pixels_N1SS), -1).astype(float)
    quantiles = np.quantile(flat, np.linspace(0.05, 0.95, 9), axis=1)
    return np.column_stack([flat.mean(axis=1), flat.std(axis=1), *quantiles])


def _mixed(columns: Columns) -> Columns:
    starts = columns.finding_start_N1
    order = np.random.default_rng(0).permutation(len(columns))
    rows = [columns.statement_F[starts[unit] : starts[unit + 1]] for unit in order]
    return replace(columns, statement_F=np.concatenate(rows), finding_start_N1=np.cumsum([0, *map(len, rows)]))
