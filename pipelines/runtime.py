"""Shards mapped over a cluster's workers, with resume: what every job but the language model's runs on."""

from __future__ import annotations

import gc
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import operational
from medfilip.storage.location import Location
from serve.cluster import LocalRaySettings

PartT = TypeVar("PartT")
_MAX_ATTEMPTS = 3

Progress = Callable[[str, str, int, Callable[[], int]], AbstractContextManager[None]]
"""Shows progress: name, unit, total, and how to count what is done (`pipelines.progress.ProgressPrinter.stage`)."""


def no_progress(_name: str, _unit: str, _total: int, _count: Callable[[], int]) -> AbstractContextManager[None]:
    """Show nothing."""
    return nullcontext()


class RaySettings(LocalRaySettings):
    """Which cluster a job runs on, and how much of this machine a local one may use."""

    address: str | None = operational(
        None, description="cluster to attach to; empty: the one this job was submitted to, else a local one"
    )


def local_concurrency() -> int | None:
    """Return how many workers make sense at once: the cores of a single machine, no limit on a cluster of several.

    Logical CPUs outnumber a laptop's cores (Ray's stages reserve a share each); a process for each would only wait.
    """
    import ray

    return (os.cpu_count() or 1) if len(ray.nodes()) == 1 else None


def map_parts(
    staging: Location,
    phase: str,
    function: Callable[[PartT], dict[str, Any]],
    parts: Sequence[PartT],
    *,
    max_in_flight: int = 1024,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Run ``function`` once for every part on the cluster and return its records in the order of ``parts``.

    A part's record is written beside its output when it is done; after a crash only the parts without a record run
    again. ``function`` must therefore write deterministic names whole, so that a second writing changes nothing.
    """
    import ray

    records, names, unfinished = _unfinished(staging, phase, len(parts))

    @ray.remote(num_cpus=1, max_retries=3)
    def work(part: PartT, record: Location) -> None:
        record.write_bytes(json.dumps(function(part)).encode())

    running: list[Any] = []
    max_in_flight = local_concurrency() or max_in_flight
    show = progress or no_progress
    try:
        with show(phase, "parts", len(names), lambda: len(records.children())):
            for number in unfinished:
                if len(running) >= max_in_flight:
                    finished, running = ray.wait(running, num_returns=1)
                    ray.get(finished)
                running.append(work.remote(parts[number], records / names[number]))
            ray.get(running)
    except ray.exceptions.RayError as error:
        raise task_error(error) from error
    return [json.loads((records / name).read_bytes()) for name in names]


def _unfinished(staging: Location, phase: str, parts: int) -> tuple[Location, list[str], list[int]]:
    """Return the folder of a phase's records, the name of each part's record, and which parts have none yet."""
    records = staging / "records" / phase
    done = {location.name for location in records.children()}
    names = [f"part-{number:05d}.json" for number in range(parts)]
    return records, names, [number for number, name in enumerate(names) if name not in done]


def stream_parts(
    staging: Location,
    phase: str,
    function: Callable[[int], dict[str, Any]],
    parts: int,
    *,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Do as `map_parts` does, through Ray Data: ``function`` takes the number of a part.

    Ray Data starts as many tasks as there is room for and reuses their processes, so what a process keeps (a decoder)
    serves many parts.
    """
    import ray
    from ray.data import TaskPoolStrategy

    records, names, waiting = _unfinished(staging, phase, parts)
    if waiting:
        items = ray.data.from_items([{"part": number} for number in waiting], override_num_blocks=len(waiting))
        work = _PartTask(function, records, Attempts.of(staging, phase))
        most = local_concurrency()
        pool = TaskPoolStrategy(size=min(most, len(waiting)) if most else None)
        streamed = items.map(work.__call__, compute=pool, num_cpus=1)
        show = progress or no_progress
        with show(phase, "parts", len(names), lambda: len(records.children())):
            run_stream(streamed)
    return [json.loads((records / name).read_bytes()) for name in names]


def run_stream(dataset: Any) -> None:
    """Run a plan of Ray Data to its end, whose tasks write what they make; what a worker raised is told as ours.

    Raises
    ------
    MedfilipError
        See `task_error`.
    """
    import ray

    try:
        with _original_errors():
            for _ in dataset.iter_batches(batch_size=None, prefetch_batches=0):
                pass
    except (ray.exceptions.RayError, MedfilipError, OSError) as error:
        raise task_error(error) from error


@dataclass(frozen=True)
class _PartTask:
    """A task of `stream_parts`."""

    function: Callable[[int], dict[str, Any]]
    records: Location
    attempts: Attempts

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        number = int(row["part"])
        name = f"part-{number:05d}"
        self.attempts.count(name)
        (self.records / f"{name}.json").write_bytes(json.dumps(self.function(number)).encode())
        return {"part": number}


@dataclass(frozen=True)
class Attempts:
    """Marks of how often each part of a stage was begun, in this execution of its job."""

    folder: Location

    @classmethod
    def of(cls, staging: Location, phase: str) -> Attempts:
        """Return the marks of a stage that begins now."""
        return cls(staging / "attempts" / f"{phase}-{secrets.token_hex(4)}")

    def count(self, name: str) -> None:
        """Refuse a part that has ended its process too often: Ray Data itself would try it without end."""
        for attempt in range(_MAX_ATTEMPTS):
            mark = self.folder / f"{name}-{attempt}"
            if not mark.exists():
                mark.write_bytes(b"")
                return
        raise MedfilipError(
            ErrorCode.INTERNAL,
            f"The part '{name}' ended its worker {_MAX_ATTEMPTS} times, as a lack of memory does.",
            fix="Give the workers more memory, and start the job again: finished parts are kept.",
        )


@contextmanager
def _original_errors() -> Iterator[None]:
    """Let Ray Data raise what a worker raised: its own wrapper loses code and fix on the way to the driver."""
    from ray.data import DataContext

    context = DataContext.get_current()
    before, context.raise_original_map_exception = context.raise_original_map_exception, True
    try:
        yield
    finally:
        context.raise_original_map_exception = before


@contextmanager
def collector_paused() -> Iterator[None]:
    """Let Python not look for cycles meanwhile: among millions of small rows that took as long as the work itself."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def task_error(error: BaseException) -> BaseException:
    """Return the error of ours that work on the cluster failed with, or one that quotes nothing of its input."""
    for cause in _causes(error):
        if isinstance(cause, MedfilipError):
            return MedfilipError(cause.code, cause.message, fix=cause.fix)
        if isinstance(cause, OSError):
            return MedfilipError(
                ErrorCode.STORAGE_FAILED,
                f"A worker could not read or write ({reason(cause)}).",
                fix="Check that every node has space, and the rights and credentials for 'root' and the inputs.",
            )
    if _is_loss(error):
        return MedfilipError(
            ErrorCode.CLUSTER_UNREACHABLE,
            f"A node of the Ray cluster, or a process of Ray on it, was lost ({type(error).__name__}).",
            fix="See that the cluster runs and has memory, and start the job again: finished parts are kept.",
        )
    return MedfilipError(
        ErrorCode.INTERNAL,
        f"A task failed on the cluster ({type(getattr(error, 'cause', None) or error).__name__}).",
        fix="Run with --debug to see where, and start the job again: finished parts are kept.",
    )


def reason(error: OSError) -> str:
    """Return what the system says of a failure to read or write, or its type; never what it was called with."""
    return os.strerror(error.errno) if error.errno else type(error).__name__


def _is_loss(error: BaseException) -> bool:
    """Whether Ray lost a process or a node, rather than that a task failed on its own."""
    from ray import exceptions

    lost = (
        exceptions.LocalRayletDiedError,
        exceptions.NodeDiedError,
        exceptions.ObjectLostError,
        exceptions.RayActorError,
        exceptions.RpcError,
        exceptions.WorkerCrashedError,
    )
    return isinstance(error, lost) and not isinstance(error, exceptions.RayTaskError)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it wraps: Ray's task errors in ``cause``, Ray Train's in ``worker_failures``.

    Ray makes its task error an instance of the error's own class too, whose text is the worker's whole traceback: only
    what it wraps is told.
    """
    from ray.exceptions import RayTaskError

    queue = [error]
    while queue:
        current = queue.pop(0)
        if not isinstance(current, RayTaskError):
            yield current
        found = [getattr(current, "cause", None), current.__cause__]
        found += list((getattr(current, "worker_failures", None) or {}).values())
        queue += [item for item in found if isinstance(item, BaseException)]
