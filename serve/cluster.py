"""The Ray that jobs and endpoint run on: the one that is there, one to attach to, or one started and stopped here."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import Settings, operational

LOOPBACK = "127.0.0.1"

# Read by Ray when it is imported.
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Images between replicas of Serve go over gRPC, not through the object store, which took a fifth
    # and more of the endpoint's CPU time.
    # Ray's limit on such a message is 4 MB; what a request may hold is bounded by max_body_bytes.
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str((1 << 31) - 1),
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.heads:bound_heads",
}
# What they say at INFO and WARNING is for Ray's developers; a command prints what its user needs.
_CHATTY_LOGGERS = (
    "ray.data",
    "ray.llm",
    "ray.serve",
    "ray.train",
    "ray._private.authentication",
    "ray._private.worker",
)


class LocalRaySettings(Settings):
    """How much of this machine a local Ray may use."""

    num_cpus: int = operational(
        8, ge=4, le=1024, description="logical CPUs of a local cluster (stages hold a share each; 8 fits two cores)"
    )
    object_store_mb: int = operational(1024, ge=100, description="shared memory of a local cluster, in MB")


@contextmanager
def ray_session(settings: LocalRaySettings, address: str | None = None) -> Iterator[bool]:
    """Use the Ray of this process, attach to a cluster, or start one that listens on this machine only.

    Parameters
    ----------
    settings
        Of a cluster that is started here.
    address
        Cluster to attach to; by default the one this job was submitted to (``RAY_ADDRESS``), if any.

    Yields
    ------
    bool
        Whether the connection was made here; then it ends with the context, and a cluster started here with it.

    Raises
    ------
    MedfilipError
        ``DEPENDENCY_MISSING`` without Ray, ``CLUSTER_UNREACHABLE`` if there is none or it does not start.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data  # sets up its logging when imported, so it is quietened after that
    except ImportError as error:
        raise MedfilipError(
            ErrorCode.DEPENDENCY_MISSING,
            "Ray is not installed.",
            fix="Install it with: pip install 'medfilip[ray,serve]'.",
        ) from error
    for name in _CHATTY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    if ray.is_initialized():
        yield False
        return
    address = address or os.environ.get("RAY_ADDRESS")
    try:
        if address and address != "local":
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            _start(settings)
    except (ConnectionError, RuntimeError) as error:
        raise MedfilipError(
            ErrorCode.CLUSTER_UNREACHABLE,
            f"The Ray cluster at {address or 'this machine'} cannot be used ({type(error).__name__}).",
            fix="Check the address, RAY_AUTH_TOKEN if the cluster asks for a token, and this machine's free memory.",
        ) from error
    try:
        yield True
    finally:
        ray.shutdown()


def _start(settings: LocalRaySettings) -> None:
    import ray

    # Ray expects as many processes as there are cores and warns beyond; logical CPUs are what counts here.
    os.environ.setdefault("RAY_worker_maximum_startup_concurrency", str(settings.num_cpus))
    # It would also start a process for each at once, of which a command on few cores uses two: a third of its CPU time.
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    ray.init(
        address="local",
        num_cpus=settings.num_cpus,
        object_store_memory=settings.object_store_mb << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _node_ip_address=LOOPBACK,
    )
