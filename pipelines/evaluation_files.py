"""What an evaluation of a model publishes, whatever it was measured on: page, numbers, model card, headline metrics."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from medfilip.evaluation.card import CARD, write_card
from medfilip.evaluation.diagnosis import DiagnosisResult
from medfilip.evaluation.examples import Example
from medfilip.evaluation.extraction import ExtractionResult
from medfilip.evaluation.provenance import RunFacts
from medfilip.evaluation.report import write_report
from medfilip.model.diagnoser import Diagnoser
from medfilip.storage.manifest import Shard
from medfilip.storage.run import Run, register_file

TRUTH = "truth of diagnosis"
"""Name of the fact that says what was taken to be true."""


def write_files(
    run: Run,
    diagnoser: Diagnoser,
    diagnosis: DiagnosisResult,
    facts: Mapping[str, str],
    *,
    title: str,
    runs: Sequence[RunFacts],
    synthetic: bool,
    extraction: ExtractionResult | None = None,
    examples: Sequence[Example] = (),
) -> list[Shard]:
    """Write ``report.html``, ``report.json`` and the model card of a run and return their manifest entries.

    Parameters
    ----------
    facts
        What was evaluated; `TRUTH` must be among them.
    title, runs, synthetic, extraction, examples
        As `write_report` takes them.
    """
    with tempfile.TemporaryDirectory() as folder:
        written = write_report(
            Path(folder), title=title, facts=facts, diagnosis=diagnosis, extraction=extraction,
            runs=runs, examples=examples, synthetic=synthetic,
        )  # fmt: skip
        for path in written:
            (run.location / path.name).write_bytes(path.read_bytes())
    card = write_card(diagnoser.fingerprint, diagnoser.versions, diagnosis, runs, truth=facts[TRUTH])
    (run.location / CARD).write_bytes(card.encode())
    return [register_file(run.location, name) for name in (*(path.name for path in written), CARD)]


def headline(diagnosis: DiagnosisResult) -> dict[str, float]:
    """Return the metrics of the manifest."""
    found = {f"zero_shot_macro_{name}": value.value for name, value in diagnosis.zero_shot.macro.items()}
    if diagnosis.robustness is not None and diagnosis.robustness.pnc_spread is not None:
        found["prompt_spread_pnc_auroc"] = diagnosis.robustness.pnc_spread
    return found
