"""What an engine's share of an extract job will take, told before it starts: sentences, tokens, time, GPU-hours.

A few dozen of the sentences it has to read are run through the real engine. Time is that of one sentence over the
sentences worked on at once; an engine that batches better on a long run than on a probe takes less.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from medfilip.storage.location import Location
from pipelines.progress import duration

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pipelines.engine_run import EngineRun
    from pipelines.engines import Extractor

PROBE_ROWS = 48
_WORTH_A_PROBE = 100 * PROBE_ROWS
"""Sentences from which a model is probed before every job: starting its engine once more costs a minute or more."""


@dataclass(frozen=True)
class Forecast:
    """What one engine will do; numbers that were not measured are ``None``.

    Attributes
    ----------
    wanted, known, pending
        Sentences it should read, has read in an earlier run, and has to read now.
    input_tokens, output_tokens
        Expected for the pending sentences.
    seconds
        Expected, without the start of the engine.
    gpu_hours
        Expected, if it runs on GPUs.
    """

    engine: str
    wanted: int
    known: int
    pending: int
    input_tokens: int | None = None
    output_tokens: int | None = None
    seconds: float | None = None
    gpu_hours: float | None = None


def forecast(run: EngineRun, extractor: Extractor, counts: dict[str, int], *, always: bool) -> Forecast:
    """Return the forecast of an engine's share; kept in staging, so that a resumed job does not probe again.

    Parameters
    ----------
    counts
        What `EngineRun.choose` returned.
    always
        Whether to probe a model even for few sentences.
    """
    probed, short = (run.staging / f"forecast-{kind}.json" for kind in ("probed", "short"))
    for kept in (probed,) if always else (probed, short):
        if kept.exists():
            return Forecast(**json.loads(kept.read_bytes()))
    plain = Forecast(extractor.name, counts["wanted"], counts["known"], counts["pending"])
    sample = run.sample(PROBE_ROWS)
    if sample.num_rows and (always or extractor.name == "lexicon" or plain.pending >= _WORTH_A_PROBE):
        plain = _expect(plain, extractor, probe(extractor, sample, run.staging / "probe"))
    (probed if always else short).write_bytes(json.dumps(asdict(plain)).encode())
    return plain


def probe(extractor: Extractor, sample: pa.Table, staging: Location) -> pa.Table:
    """Run sentences through the real engine and return its rows with the seconds each took."""
    import ray

    from pipelines.engines import PlanOptions, extract_with_lexicon

    if extractor.name == "lexicon":
        extract_with_lexicon(sample)  # builds the engine and warms it
        return extract_with_lexicon(sample, timed=True)
    assert extractor.plan is not None
    dataset = extractor.plan(ray.data.from_arrow(sample), PlanOptions(staging, timed=True))
    return pa.concat_tables(list(dataset.iter_batches(batch_size=None, batch_format="pyarrow")))


def _expect(plain: Forecast, extractor: Extractor, rows: pa.Table) -> Forecast:
    from pipelines.engines import SECONDS, cluster_has_gpus

    pending = plain.pending
    per_row = [value for value in rows[SECONDS].to_pylist() if value is not None and value > 0]
    seconds = pending * statistics.median(per_row) / max(1, extractor.lanes()) if per_row else None
    tokens: dict[str, Any] = {}
    for name in ("input_tokens", "output_tokens"):
        counted = [value for value in rows[name].to_pylist() if value is not None]
        tokens[name] = round(pending * statistics.mean(counted)) if counted else None
    gpus = extractor.gpus if extractor.gpus and cluster_has_gpus() else 0
    hours = seconds * gpus / 3600 if gpus and seconds is not None else None
    return Forecast(plain.engine, plain.wanted, plain.known, pending, **tokens, seconds=seconds, gpu_hours=hours)


def forecast_table(forecasts: list[Forecast], title: str | None = None) -> RenderableType:
    """Return what engines will do as a table of at most 100 columns."""
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    table.add_column("engine", style="cyan", no_wrap=True)
    for name in ("to read", "known", "new", "tokens in", "tokens out", "time", "GPU-hours"):
        table.add_column(name, justify="right", no_wrap=True)
    for item in forecasts:
        table.add_row(
            item.engine,
            f"{item.wanted:,}",
            f"{item.known:,}",
            f"{item.pending:,}",
            "–" if item.input_tokens is None else f"{item.input_tokens:,}",
            "–" if item.output_tokens is None else f"{item.output_tokens:,}",
            "–" if item.seconds is None else f"~{duration(item.seconds)}",
            "–" if item.gpu_hours is None else f"~{item.gpu_hours:.2f}",
        )
    return table
