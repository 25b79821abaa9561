"""The engines of extraction as Ray Data plans: rules, vLLM, and any OpenAI-compatible endpoint.

A plan is linear and gives one row for one row; `pipelines.engine_run` runs it, resumes it, and keeps what it finds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint
from medfilip.core.secrets import read_secret
from medfilip.extraction.chat_client import API_KEY_SECRET, ChatEndpoint
from medfilip.extraction.chat_engine import ChatEngine, chat_fingerprint
from medfilip.extraction.engine import LONGEST_SENTENCE, extract_table
from medfilip.extraction.lexicon import LexiconEngine
from medfilip.storage.location import Location
from pipelines.llm_settings import OpenaiSettings
from pipelines.llm_task import EXTRACTION, LlmTask
from pipelines.runtime import collector_paused, local_concurrency

if TYPE_CHECKING:
    from ray.data import Dataset

SECONDS = "seconds"
"""Extra column of a timed plan: how long the engine took for the row, in seconds; null if it does not say."""


@dataclass(frozen=True)
class PlanOptions:
    """How a plan is run this time.

    Attributes
    ----------
    staging
        Folder of the engine's intermediate files.
    timed
        Whether rows get the column `SECONDS`: for a probe, not for what is kept.
    budget_factor
        How many times longer than its setting a reply may be: more for replies that were cut off before.
    """

    staging: Location
    timed: bool = False
    budget_factor: int = 1


@dataclass(frozen=True)
class Extractor:
    """An engine with its settings.

    Attributes
    ----------
    name
        Of the engine.
    fingerprint
        Of everything that decides what it finds.
    plan
        Its Ray Data plan, if it needs one: actors of its own, or a bound on what is asked at once.
    lanes
        Sentences it works on at once, as far as settings say; with a row's duration that gives its speed.
    gpus
        GPUs it occupies.
    read
        Reads sentences in any worker, without a plan.
    """

    name: str
    fingerprint: str
    plan: Callable[[Dataset, PlanOptions], Dataset] | None
    lanes: Callable[[], int]
    gpus: int = 0
    read: Callable[[pa.Table], pa.Table] | None = None


@lru_cache(maxsize=1)
def lexicon_engine() -> LexiconEngine:
    """Return the rule engine of this process."""
    return LexiconEngine()


def lexicon_extractor() -> Extractor:
    """Return the rule engine."""
    decided = fingerprint([lexicon_engine().fingerprint, LONGEST_SENTENCE])
    return Extractor("lexicon", decided, None, cluster_cores, read=extract_with_lexicon)


def extract_with_lexicon(sentences: pa.Table, *, timed: bool = False) -> pa.Table:
    """Run the rule engine over a batch; the engine is built once in each worker process."""
    engine = lexicon_engine()
    start = time.perf_counter()
    with collector_paused():
        table = extract_table(engine, sentences)
    seconds = (time.perf_counter() - start) / max(1, sentences.num_rows)
    return timed_table(table, [seconds] * sentences.num_rows) if timed else table


def openai_extractor(settings: OpenaiSettings, *, allow_remote: bool, task: LlmTask = EXTRACTION) -> Extractor:
    """Return a chat endpoint as an engine for a task.

    Raises
    ------
    MedfilipError
        ``remote_not_allowed`` unless sending anything there was allowed. An address on this machine is no exception:
        what listens there may be a tunnel.
    """
    if not allow_remote:
        raise MedfilipError(
            ErrorCode.REMOTE_NOT_ALLOWED,
            f"The openai engine sends {task.sends} to 'openai.base_url', and nobody has allowed that.",
            fix="If the licence of the reports and your institution permit it, add --allow-remote.",
        )
    if not settings.base_url or not settings.model:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            "The openai engine needs an address and a model.",
            fix="Give openai.base_url=https://HOST/v1 and openai.model=NAME.",
        )
    endpoint = ChatEndpoint(settings.base_url, settings.model, settings.timeout_s, settings.max_tries)
    decided = chat_fingerprint(endpoint, task.template(), task.reader(), settings.max_output_tokens)
    plan = partial(_openai_plan, settings=settings, task=task)
    return Extractor("openai", decided, plan, lambda: settings.concurrency)


def _openai_plan(dataset: Dataset, options: PlanOptions, *, settings: OpenaiSettings, task: LlmTask) -> Dataset:
    extract = partial(ask_endpoint, settings=settings, options=options, task=task)
    # One task at a time keeps the bound on requests a bound for the whole job.
    return dataset.map_batches(extract, batch_format="pyarrow", num_cpus=0.5, concurrency=1)


def ask_endpoint(
    sentences: pa.Table, *, settings: OpenaiSettings, options: PlanOptions, task: LlmTask = EXTRACTION
) -> pa.Table:
    """Ask a chat endpoint about a batch; the key is read where it is needed and never travels with the plan."""
    engine = ChatEngine(
        ChatEndpoint(settings.base_url, settings.model, settings.timeout_s, settings.max_tries),
        task.template(),
        task.reader(),
        api_key=read_secret(API_KEY_SECRET),
        concurrency=settings.concurrency,
        max_tokens=settings.max_output_tokens * options.budget_factor,
    )
    start = time.perf_counter()
    results = engine.extract_many(sentences["text"].to_pylist(), sentences["context"].to_pylist())
    table = task.table(sentences["sentence_id"], engine.name, results)
    lanes = min(settings.concurrency, max(1, sentences.num_rows))
    seconds = (time.perf_counter() - start) * lanes / max(1, sentences.num_rows)
    return timed_table(table, [seconds] * sentences.num_rows) if options.timed else table


def timed_table(table: pa.Table, seconds: Sequence[float | None]) -> pa.Table:
    """Add the column `SECONDS` to an engine's rows."""
    return table.append_column(SECONDS, pa.array(seconds, pa.float64()))


def cluster_has_gpus() -> bool:
    """Whether the cluster has GPUs to run engines on."""
    import ray

    return float(ray.cluster_resources().get("GPU", 0)) > 0


def cluster_cores() -> int:
    """Return how many rule engines the cluster runs at once."""
    import ray

    return local_concurrency() or max(1, int(ray.cluster_resources().get("CPU", 1)))


def engine_environment() -> dict[str, Any]:
    """Return environment variables for engine actors: no hub, no telemetry, no request logging."""
    names = ("HF_HOME", "HF_TOKEN")
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return kept | {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
