"""The Ray side of every job: a session on the right cluster, and shards mapped over workers with resume.

Code ships as this package (installed, or the wheel of ``medfilip submit``); nothing here knows what a stage computes.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import Settings, operational
from medfilip.storage.location import Location

PartT = TypeVar("PartT")

# Set before Ray is imported: both are read at import time.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

# What they say at INFO and WARNING is for Ray's developers; a job prints what its user needs.
_CHATTY_LOGGERS = ("ray.data", "ray._private.authentication", "ray._private.worker", "ray.train", "ray.serve")


class RaySettings(Settings):
    """Which cluster a job runs on, and how much of this machine a local one may use."""

    address: str | None = operational(
        None, description="cluster to attach to; empty: the one this job was submitted to, else a local one"
    )
    num_cpus: int = operational(
        8, ge=4, description="logical CPUs of a local cluster (Ray's stages hold a share each; 8 fits two cores)"
    )
    object_store_mb: int = operational(1024, ge=100, description="shared memory of a local cluster, in MB")


@contextmanager
def ray_session(settings: RaySettings) -> Iterator[None]:
    """Attach to a cluster for the duration of a job; a cluster started here is stopped here."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise MedfilipError(
            ErrorCode.DEPENDENCY_MISSING, "Ray is not installed.", fix="Install it with: pip install 'medfilip[ray]'."
        ) from error
    import ray.data  # sets up its logging when imported, so it is quietened after that

    for name in _CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    if ray.is_initialized():
        yield
        return
    address = settings.address or os.environ.get("RAY_ADDRESS")
    common: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": False}
    try:
        if address and address != "local":
            ray.init(address=address, **common)
        else:
            # Ray expects as many processes as there are cores and warns beyond; logical CPUs are what counts here.
            os.environ.setdefault("RAY_worker_maximum_startup_concurrency", str(settings.num_cpus))
            ray.init(
                address="local",
                num_cpus=settings.num_cpus,
                object_store_memory=settings.object_store_mb << 20,
                include_dashboard=False,
                **common,
            )
    except (ConnectionError, RuntimeError) as error:
        raise MedfilipError(
            ErrorCode.CLUSTER_UNREACHABLE,
            f"The Ray cluster at {address or 'this machine'} cannot be used ({type(error).__name__}).",
            fix="Check ray.address, and RAY_AUTH_TOKEN if the cluster asks for a token.",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


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
) -> list[dict[str, Any]]:
    """Run ``function`` once for every part on the cluster and return its records in the order of ``parts``.

    A part's record is written beside its output when it is done; after a crash only the parts without a record run
    again. ``function`` must therefore write deterministic names whole, so that a second writing changes nothing.
    """
    import ray

    records = staging / "records" / phase
    done = {location.name for location in records.children()}

    @ray.remote(num_cpus=1, max_retries=3)
    def work(part: PartT, record: Location) -> None:
        record.write_bytes(json.dumps(function(part)).encode())

    names = [f"part-{number:05d}.json" for number in range(len(parts))]
    waiting = [(part, name) for part, name in zip(parts, names, strict=True) if name not in done]
    running: list[Any] = []
    max_in_flight = local_concurrency() or max_in_flight
    try:
        for part, name in waiting:
            if len(running) >= max_in_flight:
                finished, running = ray.wait(running, num_returns=1)
                ray.get(finished)
            running.append(work.remote(part, records / name))
        ray.get(running)
    except ray.exceptions.RayTaskError as error:
        raise task_error(error) from error
    return [json.loads((records / name).read_bytes()) for name in names]


def task_error(error: BaseException) -> BaseException:
    """Return the error of ours that work on the cluster failed with, or one that quotes nothing of its input."""
    for cause in _causes(error):
        if isinstance(cause, MedfilipError):
            return cause
        if isinstance(cause, OSError):
            return MedfilipError(
                ErrorCode.STORAGE_FAILED,
                f"A worker could not read or write ({type(cause).__name__}, errno {cause.errno}).",
                fix="Check that every node has space, and the rights and credentials for 'root' and the inputs.",
            )
    return MedfilipError(
        ErrorCode.INTERNAL,
        f"A task failed on the cluster ({type(getattr(error, 'cause', None) or error).__name__}).",
        fix="Run with --debug to see where, and start the job again: finished parts are kept.",
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it wraps: Ray's task errors in ``cause``, Ray Train's in ``worker_failures``."""
    queue = [error]
    while queue:
        current = queue.pop(0)
        yield current
        found = [getattr(current, "cause", None), current.__cause__]
        found += list((getattr(current, "worker_failures", None) or {}).values())
        queue += [item for item in found if isinstance(item, BaseException)]
