"""The small extractor that comes with the package, made again: ``medfilip make-extractor-mini``.

Sentences with exact findings are drawn, a student is trained on them, scored on held-out ones, and written only if it
passes the gate. Its seed and settings are here; nothing else decides what it is but the machine's arithmetic.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field
from rich.console import Console

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import Settings, operational
from medfilip.distillation.quality import Gate
from medfilip.distillation.settings import DistillSettings

_TRAIN = DistillSettings(seed=0, max_steps=3_020, batch_tokens=32_768, learning_rate=1.5e-3, epochs=4)
_TIMED_STEPS = 10


class ExtractorMiniSettings(Settings):
    """Settings of ``medfilip make-extractor-mini``; as they stand they make the model of the package."""

    sentences: int = Field(600_000, ge=1, description="sentences to draw, in blocks of 2000")
    seed: int = Field(0, ge=0, description="of the sentences")
    tested: int = Field(2_000, ge=1, description="held-out sentences that are replied to at most")
    train: DistillSettings = Field(_TRAIN, description="the student and its training")
    gate: Gate = Field(Gate(), description="least quality of a student that is written")
    processes: int = operational(
        1, ge=1, description="processes that draw sentences; the set is the same for any number"
    )


def make_extractor_mini(root: Path, out: Path | None = None, settings: ExtractorMiniSettings | None = None) -> Path:
    """Draw, train, score, gate and write; whatever step was finished in ``root`` is not done again.

    Parameters
    ----------
    root
        Folder of the training set, of the run's states, and of the model before it has passed.
    out
        Where the model is written; by default the package's own place.

    Raises
    ------
    MedfilipError
        ``QUALITY_TOO_LOW`` for a student that reads held-out sentences too badly; ``CONFIG_INVALID`` for settings of
        one's own without ``out``.
    """
    from medfilip.distillation.card import add_metrics
    from medfilip.distillation.quality import measure, read_gold, read_with_rules, require_quality
    from medfilip.distillation.replying import StudentEngine
    from medfilip.distillation.shipped import SHIPPED

    settings = settings or ExtractorMiniSettings()
    if out is None and settings.semantic() != ExtractorMiniSettings().semantic():
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            "Other settings than its own make another model than that of the package.",
            fix="Give --out FOLDER for it.",
        )
    console = Console(highlight=False, soft_wrap=True)
    _announce(settings, console)
    data = _draw(root / f"sentences-{settings.seed}-{settings.sentences}.parquet", settings, console)
    model = root / "model"
    if not _is_made(model, data, settings.train):
        _train(data, root, settings.train, console)
    gold = read_gold(data, limit=settings.tested)
    student = measure("student", StudentEngine.load(model, device=_device()).extract_many, gold)
    require_quality(student, measure("rules", read_with_rules, gold), settings.gate)
    names = ("valid", "grounded", "kept", "f1", "category_f1")
    add_metrics(model, {f"held-out synthetic {name}": getattr(student, name) for name in names})
    console.print(f"scored    category F1 {student.category_f1:.3f} on {len(gold):,} held-out sentences")
    folder = out or SHIPPED
    shutil.copytree(model, folder, dirs_exist_ok=True)
    return folder


def _announce(settings: ExtractorMiniSettings, console: Console) -> None:
    """Say what is to be done before any of it is."""
    train = settings.train
    extent = f"at most {train.epochs} epochs"
    if train.max_steps:
        tokens = train.max_steps * train.batch_tokens
        extent = (
            f"at most {train.max_steps:,} steps of {train.batch_tokens:,} tokens, {tokens / 1e6:,.1f} million in all"
        )
    console.print(f"to do     draw {settings.sentences:,} sentences, train {extent}, on {_device()}")


def _draw(file: Path, settings: ExtractorMiniSettings, console: Console) -> Path:
    from medfilip.distillation.make import make_rows
    from medfilip.distillation.row_file import write_rows

    if not file.is_file():
        rows, _, facts = make_rows(settings.sentences, seed=settings.seed, processes=settings.processes)
        part = file.with_suffix(".part")
        write_rows(rows, part, facts)
        part.replace(file)
        console.print(f"drawn     {len(rows):,} sentences with findings")
    return file


def _is_made(model: Path, data: Path, train: DistillSettings) -> bool:
    """Whether a model is there that these settings made of this training set."""
    from medfilip.distillation.card import FACTS
    from medfilip.distillation.row_file import RowFile
    from medfilip.model.checkpoint import HASHES

    if not (model / HASHES).is_file():
        return False
    facts = json.loads((model / FACTS).read_text(encoding="utf-8"))
    known: bool = facts["data"].get("fingerprint") == RowFile(data).facts["fingerprint"]
    return known and facts["settings"] == train.semantic()


def _train(data: Path, root: Path, settings: DistillSettings, console: Console) -> None:
    from medfilip.distillation.card import card_facts, publish_student
    from medfilip.distillation.prepare import prepare_once
    from medfilip.distillation.train import count_steps, fit, start_run

    prepared = prepare_once(settings, data, root / "prepared")
    run = start_run(settings, prepared, device=_device())
    pace = _Pace(count_steps(settings, run.train.lengths), console)
    last: dict[str, float] = {}

    def report(numbers: Mapping[str, float]) -> None:
        last.update(numbers)
        console.print("training  " + "  ".join(f"{name} {value:.5g}" for name, value in numbers.items()))

    fit(run, root / "state", report, after_step=pace.after_step)
    refused = run.train.refused + run.validation.refused
    metrics: dict[str, float] = {name: last[name] for name in ("loss", "validation_loss", "exact") if name in last}
    publish_student(run.model, run.tokenizer, root / "model", settings=settings,
                    facts=card_facts(prepared.facts, refused=refused), metrics=metrics)  # fmt: skip


class _Pace:
    """Says once, after the first steps, how long the others will take; the very first one warms up."""

    def __init__(self, steps: int, console: Console) -> None:
        self._steps, self._console = steps, console
        self._begun: tuple[int, float] | None = None

    def after_step(self, step: int) -> None:
        """Take the number of steps that are done."""
        if self._begun is None:
            self._begun = step, time.perf_counter()
            return
        first, begun = self._begun
        if step - first == min(_TIMED_STEPS, self._steps - first):
            seconds = (time.perf_counter() - begun) / (step - first)
            left = (self._steps - step) * seconds
            self._console.print(
                f"pace      {seconds:.2f} s a step: {left / 60:,.1f} minutes for {self._steps - step:,}"
            )


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
