"""The Ray on which a local endpoint runs: the one that is there, or one that is started and stopped here."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from medfilip.core.errors import ErrorCode, MedfilipError
from serve.settings import LocalRaySettings

# Read by Ray when it is imported.
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
_CHATTY_LOGGERS = ("ray.serve", "ray._private.authentication", "ray._private.worker")
LOOPBACK = "127.0.0.1"


@contextmanager
def local_ray(settings: LocalRaySettings) -> Iterator[bool]:
    """Use the Ray of this process, or start one that listens on this machine only and ends with the context.

    Yields whether it was started here.

    Raises
    ------
    MedfilipError
        ``DEPENDENCY_MISSING`` without Ray Serve, ``CLUSTER_UNREACHABLE`` if Ray does not start.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.serve
    except ImportError as error:
        raise MedfilipError(
            ErrorCode.DEPENDENCY_MISSING,
            "Ray Serve is not installed.",
            fix="Install it with: pip install 'medfilip[serve]'.",
        ) from error
    for name in _CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    if ray.is_initialized():
        yield False
        return
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", str(settings.num_cpus))
    try:
        ray.init(
            address="local",
            num_cpus=settings.num_cpus,
            object_store_memory=settings.object_store_mb << 20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address=LOOPBACK,
        )
    except (ConnectionError, RuntimeError) as error:
        raise MedfilipError(
            ErrorCode.CLUSTER_UNREACHABLE,
            f"Ray does not start on this machine ({type(error).__name__}).",
            fix="Free some memory, and try again; --debug shows where it failed.",
        ) from error
    try:
        yield True
    finally:
        ray.shutdown()
