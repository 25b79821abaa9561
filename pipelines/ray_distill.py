"""A student on the cluster: its rows as tokens, its training on Ray Train, its measurement on held-out sentences.

The loop itself is `medfilip.distillation.train`, which knows nothing of Ray. Any number of processes trains the same
student; the first of them validates, keeps the states and writes the model.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from medfilip.core.ids import hash64
from medfilip.distillation.dataset import TEST, Row
from medfilip.distillation.given import GOLD
from medfilip.distillation.quality import Gold, Quality, gold_of_rows, measure, read_with_rules
from medfilip.distillation.row_file import RowFile
from medfilip.distillation.settings import DistillSettings
from medfilip.extraction.engine import SentenceResult
from medfilip.model.distributed import World
from medfilip.storage.location import Location
from pipelines.ray_group import HIDDEN_GPUS, Placement, run_group, take_device, told
from pipelines.runtime import Progress, map_parts, no_progress, task_error

MODEL, LOGS, TRAINED = "model", "log", "trained.json"
_PREPARED, _PROGRESS = "prepared", "progress.json"


class DistillTask(BaseModel):
    """What workers are told; plain data, because Ray Train keeps it as JSON.

    Attributes
    ----------
    run
        Id of the run.
    staging
        Where tokens, model and log go.
    rows
        The training set.
    test_rows
        Rows of the test split that are replied to at most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: str
    staging: str
    rows: str
    train: DistillSettings
    test_rows: int

    @property
    def place(self) -> Location:
        """Where tokens, model and log go."""
        return Location.parse(self.staging)

    def steps_done(self) -> int:
        """Return the step of the last report."""
        file = self.place / _PROGRESS
        return int(json.loads(file.read_bytes())["step"]) if file.exists() else 0


class Scores(BaseModel):
    """What a student reads beside another reading of the same sentences.

    Attributes
    ----------
    other
        The teacher, whose readings are the truth, or rules, where persons' decisions are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    student: Quality
    other: Quality


def prepare_student(task: DistillTask, progress: Progress | None = None) -> dict[str, int]:
    """Turn the rows into tokens, once, and return the audit of their lengths."""
    (audit,) = map_parts(task.place, "prepare", prepare_rows, [task], progress=progress)
    return audit


def prepare_rows(task: DistillTask) -> dict[str, int]:
    """Write tokenizer and tokens; a tokenizer that was made twice might differ, and old weights would not fit it."""
    from medfilip.core.fingerprint import sha256_file
    from medfilip.distillation.prepare import prepare, save_prepared
    from medfilip.distillation.train import count_steps

    with tempfile.TemporaryDirectory() as name:
        file, folder = Path(name) / "rows.parquet", Path(name) / _PREPARED
        Location.parse(task.rows).read_file(file)
        rows = RowFile(file)
        prepared = prepare(task.train, rows, rows.facts, data=sha256_file(file), folder=folder)
        save_prepared(prepared, folder)
        upload(folder, task.place / _PREPARED)
    return {
        "training_steps": count_steps(task.train, prepared.train.lengths),
        "training_tokens": int(prepared.train.lengths.sum()),
        "longest_row_tokens": int(prepared.train.lengths.max()),
        "too_many_tokens": prepared.train.refused + prepared.validation.refused,
    }


def train_student(task: DistillTask, placement: Placement, steps: int, show: Progress = no_progress) -> None:
    """Train to the end and write the model; a second call goes on from the last checkpoint, or does nothing at all."""
    if (task.place / TRAINED).exists():
        return
    shown = show("train", "steps", steps, task.steps_done)
    run_group(distill_worker, task.model_dump(mode="json"), task.run, placement, shown)


def distill_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Train in one process of a group that Ray Train has set up.

    Returns
    -------
    dict
        The number of processes, or the error that all of them ran into.
    """
    task, world = DistillTask.model_validate(config), World.current()
    take_device()

    def work() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as name:
            _train(task, Path(name), world)
        return {"workers": world.size}

    return told(work)


def _train(task: DistillTask, folder: Path, world: World) -> None:
    import torch

    from medfilip.distillation.card import card_facts, publish_student
    from medfilip.distillation.prepare import load_prepared
    from medfilip.distillation.train import fit, start_run

    download(task.place / _PREPARED, folder / _PREPARED)
    prepared = load_prepared(folder / _PREPARED, task.train)
    run = start_run(task.train, prepared, device="cuda" if torch.cuda.is_available() else "cpu", world=world)
    reporter = StudentReporter(task, folder / "state", world)
    fit(run, reporter.state, reporter.report, after_state=reporter.after_state)
    if world.rank:
        return
    refused = run.train.refused + run.validation.refused
    facts = card_facts(prepared.facts, refused=refused)
    metrics = {name: reporter.last[name] for name in ("loss", "validation_loss", "exact")}
    model = folder / MODEL
    name = publish_student(run.model, run.tokenizer, model, settings=task.train, facts=facts, metrics=metrics)
    upload(model, task.place / MODEL)
    (task.place / TRAINED).write_bytes(json.dumps({"fingerprint": name, "steps": run.step, **metrics}).encode())


class StudentReporter:
    """Hands states to Ray Train as checkpoints, and the latest one back to the loop after a restart.

    Parameters
    ----------
    state
        Local folder in which the loop keeps its state.
    world
        Which of the processes this is.
    """

    def __init__(self, task: DistillTask, state: Path, world: World) -> None:
        import ray.train

        self._task, self.state, self._world = task, state, world
        self.last: Mapping[str, float] = {}
        latest = ray.train.get_checkpoint()
        if latest is not None:
            latest.to_directory(os.fspath(state))

    def report(self, numbers: Mapping[str, float]) -> None:
        """Log numbers; a resumed run writes those of a step again under the same name."""
        self.last, step = dict(numbers), int(numbers["step"])
        (self._task.place / f"{LOGS}/{step:08d}.json").write_bytes(json.dumps(self.last).encode())
        (self._task.place / _PROGRESS).write_bytes(json.dumps({"step": step}).encode())

    def after_state(self, step: int) -> None:
        """Report from every process, as Ray Train's barrier asks; rank 0 brings the state that the loop has written."""
        import ray.train

        checkpoint = ray.train.Checkpoint.from_directory(os.fspath(self.state)) if self._world.rank == 0 else None
        ray.train.report({"step": step}, checkpoint=checkpoint)


def measure_student(task: DistillTask, placement: Placement) -> dict[str, Scores]:
    """Measure the trained student in a task of its own: against its teacher, and against gold if there is some."""
    import ray

    options: dict[str, Any] = {"num_cpus": 1}
    if placement.gpus:
        options["num_gpus"] = 1
    elif placement.hide_gpus:
        options["runtime_env"] = HIDDEN_GPUS
    try:
        found = ray.get(ray.remote(**options)(measure_model).remote(task))
    except ray.exceptions.RayError as error:
        raise task_error(error) from error
    return {name: Scores.model_validate(scores) for name, scores in found.items()}


def measure_model(task: DistillTask) -> dict[str, dict[str, Any]]:
    """Read the held-out sentences with the model as it will be published."""
    import torch

    from medfilip.distillation.replying import StudentEngine

    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        file, model = Path(name) / "rows.parquet", Path(name) / MODEL
        Location.parse(task.rows).read_file(file)
        held_out = [row for row in RowFile(file) if row.split == TEST]
        sets = {
            "teacher": _sample([row for row in held_out if row.source != GOLD], task.test_rows),
            "gold": [row for row in held_out if row.source == GOLD],
        }
        download(task.place / MODEL, model)
        engine = StudentEngine.load(model, device="cuda" if torch.cuda.is_available() else "cpu")
        for kind, part in sets.items():
            if part:
                found[kind] = _scores(engine, kind, gold_of_rows(part)).model_dump()
    return found


def _scores(engine: Any, kind: str, gold: list[Gold]) -> Scores:
    truth = {item.sentences[0]: item for item in gold}

    def read_as_teacher(asked: Any) -> list[SentenceResult]:
        return [SentenceResult([dict(row) for row in truth[one].findings]) for one in asked]

    other = measure("rules", read_with_rules, gold) if kind == "gold" else measure("teacher", read_as_teacher, gold)
    return Scores(student=measure("student", engine.extract_many, gold), other=other)


def _sample(rows: list[Row], most: int) -> list[Row]:
    """Return at most so many rows, chosen by their hashes."""
    return sorted(rows, key=lambda row: hash64("measured", row.text, row.context or ""))[:most]


def upload(folder: Path, place: Location) -> None:
    """Copy the files of a local folder to a location."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            (place / file.relative_to(folder).as_posix()).write_file(file)


def download(place: Location, folder: Path) -> None:
    """Copy the files below a location into a local folder."""
    for info in place.files():
        target = folder / info.path.removeprefix(f"{place.path}/")
        target.parent.mkdir(parents=True, exist_ok=True)
        Location(place.scheme, info.path).read_file(target)
