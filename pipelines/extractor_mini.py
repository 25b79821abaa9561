"""The small extractor that comes with the package, made again: ``medfilip make-extractor-mini``.

Sentences with exact findings are drawn, a student is trained on them, scored on held-out ones, and written only if it
passes the gate. Its seed and settings are here; nothing else decides what it is but the machine's arithmetic.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from medfilip.core.fingerprint import sha256_file

SENTENCES, SEED, STEPS, TESTED = 600_000, 0, 3_020, 2_000
SETTINGS: dict[str, Any] = {"batch_tokens": 32_768, "learning_rate": 1.5e-3, "epochs": 4}


def make_extractor_mini(
    root: Path, out: Path | None = None, *, sentences: int = SENTENCES, steps: int = STEPS, processes: int = 1
) -> Path:
    """Draw, train, score, gate and write; whatever step was finished in ``root`` is not done again.

    Parameters
    ----------
    root
        Folder of the training set, of the run's states and log, and of the model before it has passed.
    out
        Where the model is written; by default the package's own place.
    sentences, steps
        Size of the training set and length of the run; fewer make a worse one, which the gate refuses.
    processes
        Processes that draw sentences; the set is the same for any number.

    Raises
    ------
    MedfilipError
        ``QUALITY_TOO_LOW`` for a student that reads held-out sentences too badly.
    """
    from medfilip.distillation.card import add_metrics
    from medfilip.distillation.quality import Gate, measure, read_gold, read_with_rules, require_quality
    from medfilip.distillation.replying import StudentEngine
    from medfilip.distillation.shipped import SHIPPED
    from medfilip.model.checkpoint import HASHES

    console = Console(highlight=False)
    data = _draw(root / f"sentences-{sentences}.parquet", sentences, processes, console)
    model = root / "model"
    if not (model / HASHES).is_file():
        _train(data, root, steps, console)
    gold = read_gold(data, limit=TESTED)
    student = measure("student", StudentEngine.load(model, device=_device()).extract_many, gold)
    require_quality(student, measure("rules", read_with_rules, gold), Gate())
    names = ("valid", "grounded", "kept", "f1", "category_f1")
    add_metrics(model, {f"held-out synthetic {name}": getattr(student, name) for name in names})
    console.print(f"scored    category F1 {student.category_f1:.3f} on {len(gold):,} held-out sentences")
    folder = out or SHIPPED
    shutil.copytree(model, folder, dirs_exist_ok=True)
    return folder


def _draw(file: Path, sentences: int, processes: int, console: Console) -> Path:
    from medfilip.distillation.make import make_rows
    from medfilip.distillation.row_file import write_rows

    if not file.is_file():
        rows, _, facts = make_rows(sentences, seed=SEED, processes=processes)
        part = file.with_suffix(".part")
        write_rows(rows, part, facts)
        part.replace(file)
        console.print(f"drawn     {len(rows):,} sentences with findings")
    return file


def _train(data: Path, root: Path, steps: int, console: Console) -> None:
    from medfilip.distillation.card import card_facts, publish_student
    from medfilip.distillation.prepare import prepare
    from medfilip.distillation.row_file import RowFile
    from medfilip.distillation.settings import DistillSettings
    from medfilip.distillation.train import fit, start_run

    settings = DistillSettings(seed=SEED, max_steps=steps, **SETTINGS)
    rows = RowFile(data)
    prepared = prepare(settings, rows, rows.facts, data=sha256_file(data))
    run = start_run(settings, prepared, device=_device())
    last: dict[str, float] = {}

    def report(numbers: Mapping[str, float]) -> None:
        last.update(numbers)
        console.print("training  " + "  ".join(f"{name} {value:.5g}" for name, value in numbers.items()))

    fit(run, root / "state", report)
    refused = run.train.refused + run.validation.refused
    metrics: dict[str, float] = {name: last[name] for name in ("loss", "validation_loss", "exact") if name in last}
    publish_student(run.model, run.tokenizer, root / "model", settings=settings,
                    facts=card_facts(prepared.facts, refused=refused), metrics=metrics)  # fmt: skip


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
