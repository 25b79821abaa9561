"""The checkpoint that comes with the package, made again: ``medfilip make-default-model``.

It is trained on synthetic studies alone, by the same jobs a user would run, so that whoever has no model yet can see
the endpoint answer. Its seed and settings are here; nothing else decides what it is.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from rich.console import Console

from medfilip.core.settings import load_settings
from medfilip.model.checkpoint import load_checkpoint, write_checkpoint
from medfilip.model.locate import DEFAULT_CHECKPOINT
from medfilip.phantom.study import DEMONSTRATED
from pipelines.job import JOBS, Outcome
from pipelines.runtime import RaySettings
from serve.cluster import ray_session

STUDIES, SEED, IMAGE_SIZE, EPOCHS = 2400, 0, 128, 45


def make_default_model(root: Path, out: Path | None = None) -> Path:
    """Train the default checkpoint and write it, without the optimizer's state.

    Parameters
    ----------
    root
        Folder of the runs; one that was killed goes on from there.
    out
        Where the checkpoint is written; by default the package's own place.

    Returns
    -------
    Path
        The folder that was written.
    """
    console = Console(highlight=False)

    def run(name: str, *overrides: str) -> Outcome:
        module = JOBS[name].load()
        outcome: Outcome | None = module.run(
            load_settings(module.SETTINGS, name, overrides=[*overrides, f"root={root}"]), new_run=False
        )
        assert outcome is not None
        console.print(f"{name:9} {outcome.location}")
        return outcome

    with ray_session(RaySettings()):
        drawn = run(
            "phantom", f"count={STUDIES}", f"seed={SEED}", f"categories=[{','.join(DEMONSTRATED)}]", "prevalence=0.2",
            "size=256", "styles=[digital,portable,enhanced,film]",
        )  # fmt: skip
        corpus = f"{drawn.location}/corpus"
        ingested = run(
            "ingest", f"reports={corpus}", f"images={corpus}/images", "store_size=128", "keep_report_ids=true",
            "split.train=0.84", "split.validation=0.16", "split.test=0.0",
        )  # fmt: skip
        images = f"images={ingested.location}"
        findings = f"findings={run('extract', f'reports={ingested.location}').location}"
        pairs = run("inject", findings, images)
        trained = run(
            "pretrain", f"pairs={pairs.location}", images, "train.model.preset=small", "train.precision=bf16",
            f"train.model.image_size={IMAGE_SIZE}", f"train.epochs={EPOCHS}", f"train.seed={SEED}",
            "train.max_texts=4", "train.hard_negatives=2", "train.text_warmup=300", "train.warmup=0.1",
            "workers=1", "validate_every=0",
        )  # fmt: skip
        # Reports name what is there and deny little: probabilities are fitted to what was drawn.
        fitted = run(
            "calibrate", f"checkpoint={trained.location}", images, findings, f"phantom_truth={corpus}", "method=platt"
        )
    folder = out or DEFAULT_CHECKPOINT
    made = load_checkpoint(Path(fitted.location) / "checkpoint")
    with tempfile.TemporaryDirectory(dir=folder.parent if folder.parent.is_dir() else None) as staging:
        write_checkpoint(made, Path(staging))
        folder.mkdir(parents=True, exist_ok=True)
        for file in Path(staging).iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
    return folder
