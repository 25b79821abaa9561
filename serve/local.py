"""The endpoint on one machine: for ``medfilip serve``, the demo, notebooks and tests."""

from __future__ import annotations

import json
import logging
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medfilip.client import Client
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import load_settings, to_yaml
from medfilip.model.locate import DEFAULT_CHECKPOINT, find_checkpoint, local_copy
from medfilip.storage.location import Location
from serve.cluster import LOOPBACK, ray_session
from serve.keys import configured_hashes, hash_key, new_key
from serve.settings import ServeSettings

APPLICATION = "medfilip"
_START_S = 120.0
_PORTS, _TRIES = range(20_000, 32_000), 20


@dataclass(frozen=True)
class Endpoint:
    """A running endpoint.

    Attributes
    ----------
    url
        For example ``http://127.0.0.1:8000``.
    api_key
        The key made for this run; ``None`` if keys are configured or anonymous use is allowed.
    settings
        What it runs with.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    settings: ServeSettings = field(default_factory=ServeSettings, repr=False)

    def replace_model(self, checkpoint: str | Path) -> None:
        """Let running replicas answer with another checkpoint; until one can, it answers with the present one.

        On a cluster, ``serve deploy`` with another ``checkpoint`` in the configuration does the same.

        Raises
        ------
        MedfilipError
            ``INPUT_NOT_FOUND``, ``CHECKPOINT_INVALID`` if it cannot be loaded; the present one stays.
        """
        from medfilip.model.checkpoint import load_checkpoint

        folder = find_checkpoint(Location.parse(checkpoint))
        load_checkpoint(local_copy(folder))
        _run(self.settings.model_copy(update={"checkpoint": str(folder)}))


@contextmanager
def running_endpoint(checkpoint: str | Path | None = None, settings: ServeSettings | None = None) -> Iterator[Endpoint]:
    """Serve a checkpoint for the duration of the context, and stop cleanly.

    Uses the Ray of this process if there is one, and starts one otherwise. Without configured keys one is made.

    Parameters
    ----------
    checkpoint
        Folder of a checkpoint, or of the run or demo that made it; ``None`` for the package's synthetic one.
    settings
        Everything else; by default a free port of this machine.

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND``, ``CHECKPOINT_INVALID``, ``PORT_TAKEN``, ``CLUSTER_UNREACHABLE`` and what settings raise.
    """
    folder = find_checkpoint(Location.parse(checkpoint or DEFAULT_CHECKPOINT))
    settings = settings or ServeSettings(checkpoint=str(folder), port=0)
    key = _key_to_make(settings)
    made = (hash_key(key),) if key else ()
    settings = settings.model_copy(
        update={
            "checkpoint": str(folder),
            "port": _free_port(settings.host, settings.port),
            "api_key_hashes": (*settings.api_key_hashes, *made),
        }
    )
    shown = LOOPBACK if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compared, not bound
    endpoint = Endpoint(f"http://{shown}:{settings.port}", key, settings)
    with ray_session(settings.ray) as ours, _serving(settings, own_ray=ours):
        _wait_until_ready(endpoint)
        yield endpoint


def serve_until_interrupted(
    checkpoint: str | None, overrides: Sequence[str] = (), *, config: Path | None = None, print_config: bool = False
) -> None:
    """Serve a checkpoint on this machine until Ctrl-C or SIGTERM, after printing how to call it."""
    given = [f"checkpoint={json.dumps(checkpoint)}"] if checkpoint else []
    settings = load_settings(ServeSettings, "serve", file=config, overrides=[*given, *overrides])
    if print_config:
        sys.stdout.write(to_yaml(settings))
        return
    stop = threading.Event()
    # Until the endpoint is up, Ctrl-C and SIGTERM interrupt the start; from then on they end the wait.
    earlier = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with running_endpoint(settings.checkpoint or None, settings) as endpoint:
            _announce(endpoint, settings)
            handlers = [signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)]
            stop.wait()
            sys.stdout.write("Stopping.\n")
            signal.signal(signal.SIGINT, handlers[0])
    finally:
        signal.signal(signal.SIGTERM, earlier)


@contextmanager
def _serving(settings: ServeSettings, *, own_ray: bool) -> Iterator[None]:
    from ray import serve as rayserve

    from serve.app import LOGGING

    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # importing Serve set it to tell every step

    _application(settings)  # whatever is wrong with the settings is told before anything starts
    if not own_ray and rayserve.status().proxies:
        raise MedfilipError(
            ErrorCode.PORT_TAKEN,
            "Ray Serve runs on this Ray already, with an address of its own.",
            fix="End it first, or add the application to it with 'serve deploy'.",
        )
    try:
        rayserve.start(
            proxy_location="HeadOnly",
            http_options={
                "host": settings.host,
                "port": settings.port,
                # Beyond the gateway's own limits, which answer in the shape of every other error.
                "request_timeout_s": settings.longest_request_s,
                "keep_alive_timeout_s": settings.keep_alive_timeout_s,
            },
            logging_config=LOGGING,
        )
        try:
            _run(settings)
        except RuntimeError as error:
            raise _why_not_started(settings) from error
        yield
    finally:
        if own_ray:
            rayserve.delete(APPLICATION)  # ends requests; the rest ends with Ray, faster and without a word
        else:
            rayserve.shutdown()


def _application(settings: ServeSettings) -> Any:
    from serve.app import build

    return build(settings.model_dump(mode="json"))


def _run(settings: ServeSettings) -> None:
    from ray import serve as rayserve

    from serve.app import LOGGING

    rayserve.run(_application(settings), name=APPLICATION, route_prefix="/", logging_config=LOGGING)


def _why_not_started(settings: ServeSettings) -> MedfilipError:
    """Return why the replicas failed: Serve keeps their exceptions in its logs, so the likely ones are tried again."""
    from medfilip.model.diagnoser import Diagnoser

    try:
        Diagnoser.load(local_copy(Location.parse(settings.checkpoint)))
    except MedfilipError as error:
        return error
    return MedfilipError(
        ErrorCode.CLUSTER_UNREACHABLE,
        "The replicas of the endpoint do not start, although the checkpoint is sound.",
        fix="Check encoder.device and the CPUs and GPUs that replicas ask for; their logs are in Ray's session folder.",
    )


def _wait_until_ready(endpoint: Endpoint) -> None:
    """Return when the endpoint answers at its address: the proxy learns its routes a moment after the start."""
    deadline = time.monotonic() + _START_S
    with Client(endpoint.url, timeout_s=10) as client:
        while True:
            try:
                client.health()
            except MedfilipError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return


def _key_to_make(settings: ServeSettings) -> str | None:
    if settings.allow_anonymous or settings.api_key_hashes or settings.keys_file or configured_hashes():
        return None
    return new_key()


def _free_port(host: str, port: int) -> int:
    """Return the port, or a free one for 0, after binding it once: Ray would fail later and less clearly.

    A free one is looked for below those that systems give to connections: Ray opens many of these before Serve binds.
    """
    candidates = [port] if port else random.sample(_PORTS, _TRIES)
    for candidate in candidates:
        try:
            return _bound(host, candidate)
        except OSError as error:
            if candidate == candidates[-1]:
                raise MedfilipError(
                    ErrorCode.PORT_TAKEN,
                    f"The endpoint cannot listen on port {candidate} of {host} ({error.strerror}).",
                    fix="Stop what listens there, or choose another with port=8001 (port=0 takes a free one).",
                ) from error
    raise AssertionError("unreachable")


def _bound(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return int(probe.getsockname()[1])


def _announce(endpoint: Endpoint, settings: ServeSettings) -> None:
    if endpoint.api_key:
        print_key = f"API key, made for this run and shown only here: {endpoint.api_key}\n"
        header = f"-H 'Authorization: Bearer {endpoint.api_key}' "
    else:
        print_key = "Everybody may use it: allow_anonymous is true.\n" if settings.allow_anonymous else ""
        header = "" if settings.allow_anonymous else "-H 'Authorization: Bearer YOUR_KEY' "
    # In the fragment of an address, which browsers send to nobody.
    page = f"{endpoint.url}/#key={endpoint.api_key}" if endpoint.api_key else f"{endpoint.url}/"
    print_page = f"Page: {page}\n" if settings.page else ""
    sys.stdout.write(
        f"Serving {settings.checkpoint or 'the synthetic checkpoint of the package'} at {endpoint.url} (research use "
        f"only).\n{print_page}{print_key}Try:\n"
        f"  curl {header}-F file=@IMAGE.dcm -F 'labels=left pleural effusion' -F labels=cardiomegaly "
        f"{endpoint.url}/v1/diagnose\n"
        "Ctrl-C stops it.\n"
    )
    sys.stdout.flush()
