"""The Ray Serve application: ``serve run serve.app:build checkpoint=FOLDER``, or ``serve deploy serve/config.yaml``.

gateway (HTTP, keys, limits) → decoder (files to pixels) → encoder (pixels to scores, in batches). The classes here
only place services and carry calls; what these compute is in ``serve.decoding``, ``serve.encoding``, ``serve.gateway``.
"""

# No `from __future__ import annotations`: Serve reads the annotations of builders as classes.

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import grpc
import ray
from fastapi import FastAPI
from ray import serve as rayserve
from ray.serve.config import AutoscalingConfig, BackpressureConfig
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException

from medfilip._version import __version__
from medfilip.answers import Diagnosis, LabelFacts, ModelCard
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint
from medfilip.core.settings import validate_settings
from medfilip.model.locate import DEFAULT_CHECKPOINT, find_checkpoint, local_copy
from medfilip.model.question import Question
from medfilip.storage.location import Location
from serve.decoding import DecoderService
from serve.gateway import Gateway
from serve.guard import Auditor
from serve.keys import KeyRing, accepted_hashes
from serve.messages import Decoded, Embedded, FloatArray, Refused, Told
from serve.metrics import EndpointMetrics
from serve.rendering import Form
from serve.settings import PoolSettings, ServeSettings
from serve.tracing import Tracing, check_tracing
from serve.web import http_app

LOGGING = {"encoding": "JSON", "log_level": "WARNING", "enable_access_log": False}
"""Of every deployment, the controller and the proxies: addresses of requests may hold labels, so none is logged."""

_logger = logging.getLogger("medfilip.serve")
_T = TypeVar("_T")


class Decoder:
    """A replica that decodes one image at a time; others wait in it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        given = ServeSettings.model_validate(settings)
        self._service = DecoderService(given.limits, store_size=given.store_size)
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._tracing = _tracing(given)

    async def decode(self, data: bytes, image_size: int, preview: bool, trace: str | None = None) -> Decoded | Refused:
        """Decode one file; ``trace`` is the span of the request, here as below."""
        work = partial(self._service.decode, data, image_size, preview=preview)
        return await self._traced("decode", trace, work)

    async def render(
        self, form: Form, diagnosis: Diagnosis, files: tuple[bytes, ...], trace: str | None = None
    ) -> tuple[bytes, ...] | Refused:
        """Write an answer in another form."""
        return await self._traced("render", trace, partial(self._service.render, form, diagnosis, files))

    async def _traced(self, name: str, trace: str | None, work: Callable[[], _T]) -> _T:
        with self._tracing.span(name, trace) as span:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, work)
            span.outcome(found)
            return found

    def __del__(self) -> None:
        self._service.close()
        self._tracing.close()


class Encoder:
    """A replica that holds the model; one thread computes, so batches and label sets never compete for the cores."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = ServeSettings.model_validate(settings)
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._metrics = EndpointMetrics(exported=True)
        self._service: Any = None  # an EncoderService, which brings torch; gateways and decoders do without
        self._embed.set_max_batch_size(self._settings.encoder.max_batch_size)
        self._embed.set_batch_wait_timeout_s(self._settings.encoder.batch_wait_s)
        self._batches: dict[int, int] = {}
        self._tracing = _tracing(self._settings)

    async def reconfigure(self, config: dict[str, str]) -> None:
        """Load the checkpoint of the configuration; while another one answers, it goes on until this one can.

        Serve calls this before the replica takes requests, and again when `build` names another checkpoint. One that
        cannot be loaded then is told in the log, and the model stays: a typing error must not end a running service.
        """
        try:
            loaded = await asyncio.to_thread(self._load, config["checkpoint"])
        except Exception as error:
            if self._service is None:
                raise
            _logger.error("the model was not replaced: %s", getattr(error, "code", type(error).__name__))
            return
        # On the thread that computes, so that a batch and its answers come from one model.
        await self._computed(self._take, loaded)

    def _load(self, checkpoint: str) -> Any:
        from serve.encoding import EncoderService

        return EncoderService(
            local_copy(Location.parse(checkpoint)),
            device=self._settings.encoder.device,
            unfamiliar_from=self._settings.unfamiliar_from,
            metrics=self._metrics,
        )

    def _take(self, service: Any) -> None:
        self._service = service

    async def answer(self, question: Question, images: tuple[Decoded, ...], trace: str | None = None) -> Told | Refused:
        """Answer a question about one study; its images are embedded together with those of other requests."""
        found = await self._views(images, trace)
        if isinstance(found, Refused):
            return found
        service, views = found
        with self._tracing.span("answer", trace) as span:
            told: Told | Refused = await self._computed(service.answer, question, views, images)
            span.outcome(told)
        return told

    async def embed(
        self, images: tuple[Decoded, ...], texts: tuple[str, ...], trace: str | None = None
    ) -> Embedded | Refused:
        """Embed the images of one study, texts, or both."""
        found = await self._views(images, trace)
        if isinstance(found, Refused):
            return found
        service, views = found
        with self._tracing.span("answer", trace) as span:
            embedded: Embedded | Refused = await self._computed(service.embed_all, views, texts)
            span.outcome(embedded)
        return embedded

    async def card(self) -> ModelCard:
        """Describe the model."""
        card: ModelCard = self._service.card()
        return card

    async def labels(self) -> tuple[LabelFacts, ...]:
        """Describe the categories."""
        labels: tuple[LabelFacts, ...] = self._service.labels()
        return labels

    async def batches(self) -> dict[int, int]:
        """Return how many batches of each size this replica has computed."""
        return dict(self._batches)

    async def _views(self, images: tuple[Decoded, ...], trace: str | None) -> tuple[Any, list[FloatArray]] | Refused:
        """Embed images, all by one model, and return it with their embeddings."""
        with self._tracing.span("embed", trace) as span:
            found = await asyncio.gather(*(self._embed(image.pixels) for image in images))
            refused = next((view for _, view in found if isinstance(view, Refused)), None)
            span.tell(images=len(images))
            span.outcome(refused)
        if refused is not None:
            return refused
        services = {id(service): service for service, _ in found} or {0: self._service}
        if len(services) > 1:
            return Refused(ErrorCode.MODEL_CHANGED, "The model was replaced meanwhile.", "Send the request again.")
        return next(iter(services.values())), [view for _, view in found]

    async def _computed(self, work: Callable[..., _T], *given: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *given)

    @rayserve.batch(max_batch_size=16, batch_wait_timeout_s=0.01, max_concurrent_batches=1)
    async def _embed(self, images: list[FloatArray]) -> list[tuple[Any, FloatArray | Refused]]:
        self._batches[len(images)] = self._batches.get(len(images), 0) + 1
        self._metrics.batch(len(images))
        return await self._computed(self._embed_now, images)

    def _embed_now(self, images: list[FloatArray]) -> list[tuple[Any, FloatArray | Refused]]:
        service = self._service
        with self._metrics.stage("embed"):
            return [(service, view) for view in service.embed(images)]


class HttpGateway:
    """A replica that speaks HTTP."""

    def __init__(self, settings: dict[str, Any], key_hashes: tuple[str, ...], decoder: Any, encoder: Any) -> None:
        self._settings = ServeSettings.model_validate(settings)
        self._keys = KeyRing(key_hashes, None if self._settings.allow_anonymous else _path(self._settings.keys_file))
        folder, self._auditor = _path(self._settings.audit_folder), None
        if folder is not None:
            self._auditor = Auditor(folder, rayserve.get_replica_context().replica_id.unique_id)
        self._metrics = EndpointMetrics(exported=True)
        self._tracing = _tracing(self._settings)
        backend = RayBackend(decoder, encoder, self._tracing)
        self._gateway = Gateway(backend, self._settings, self._metrics)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Return the application; Serve asks for it once, when the replica has been constructed."""
        return http_app(
            self._gateway, self._keys, self._settings, behind_proxy=True, auditor=self._auditor, metrics=self._metrics,
            tracing=self._tracing,
        )  # fmt: skip

    def __del__(self) -> None:
        if self._auditor is not None:
            self._auditor.close()
        self._tracing.close()


class RayBackend:
    """Carries the gateway's calls to the replicas; what Ray raises on the way becomes an error of ours.

    Parameters
    ----------
    decoder, encoder
        Handles of the deployments.
    tracing
        Whose current span the calls belong to.
    """

    def __init__(self, decoder: Any, encoder: Any, tracing: Tracing) -> None:
        self._decoder, self._encoder, self._tracing = decoder, encoder, tracing

    async def decode(self, data: bytes, image_size: int, preview: bool) -> Decoded | Refused:
        """Decode a file on a free decoder."""
        trace = self._tracing.current()
        return await _carried(lambda: self._decoder.decode.remote(data, image_size, preview, trace))

    async def render(self, form: Form, diagnosis: Diagnosis, files: Sequence[bytes]) -> tuple[bytes, ...] | Refused:
        """Write an answer in another form on a decoder."""
        trace = self._tracing.current()
        return await _carried(lambda: self._decoder.render.remote(form, diagnosis, tuple(files), trace))

    async def answer(self, question: Question, images: Sequence[Decoded]) -> Told | Refused:
        """Answer a question on an encoder."""
        trace = self._tracing.current()
        return await _asked_again(lambda: self._encoder.answer.remote(question, tuple(images), trace))

    async def embed(self, images: Sequence[Decoded], texts: Sequence[str]) -> Embedded | Refused:
        """Embed on an encoder."""
        trace = self._tracing.current()
        return await _asked_again(lambda: self._encoder.embed.remote(tuple(images), tuple(texts), trace))

    async def card(self) -> ModelCard:
        """Ask an encoder about its model."""
        return await _asked_again(self._encoder.card.remote)

    async def labels(self) -> tuple[LabelFacts, ...]:
        """Ask an encoder about the categories."""
        return await _asked_again(self._encoder.labels.remote)


async def _asked_again(call: Callable[[], Awaitable[_T]]) -> _T:
    """Carry a call; if its replica dies meanwhile, carry it to another one.

    Only calls of encoders: what they are given has been decoded, and is not what killed a replica. A decoder may have
    died of the very file that would be sent to the next.
    """

    async def replaced() -> _T:
        try:
            return await call()
        except (ray.exceptions.RayActorError, grpc.RpcError):
            return await call()

    return await _carried(replaced)


async def _carried(call: Callable[[], Awaitable[_T]]) -> _T:
    try:
        return await call()
    except BackPressureError:
        raise MedfilipError(
            ErrorCode.OVERLOADED,
            "More requests wait than max_queued_requests allows.",
            fix="Send the request again after the seconds in Retry-After.",
        ) from None
    except (DeploymentUnavailableError, RayServeException, ray.exceptions.RayError, grpc.RpcError) as error:
        # Ray's text may hold a replica's traceback; only its kind is told.
        raise MedfilipError(
            ErrorCode.OVERLOADED,
            f"A part of the endpoint is not available ({type(error).__name__}).",
            fix="Send the request again after the seconds in Retry-After.",
        ) from None


def build(args: dict[str, Any]) -> Any:
    """Build the application from settings, for ``serve run`` and ``serve deploy``.

    Parameters
    ----------
    args
        Values of `ServeSettings`. API keys come from the environment in which this runs.

    Returns
    -------
    ray.serve.Application
        The graph, with only the hashes of the keys in it.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID``, ``CONFIG_UNKNOWN_KEY``, ``SECRET_MISSING``, ``DEPENDENCY_MISSING``, ``INPUT_NOT_FOUND`` or
        ``CHECKPOINT_INVALID``.
    """
    settings = validate_settings(ServeSettings, args)
    check_tracing(settings)
    hashes = accepted_hashes(
        settings.api_key_hashes, allow_anonymous=settings.allow_anonymous, file=_path(settings.keys_file)
    )
    checkpoint = find_checkpoint(Location.parse(settings.checkpoint or DEFAULT_CHECKPOINT))
    # Not the checkpoint: another one shall replace the model in running replicas, and nothing else.
    values = settings.model_dump(mode="json", exclude={"api_key_hashes", "checkpoint"})
    encoder_resources = {"num_gpus": settings.encoder.num_gpus} if settings.encoder.num_gpus else {}
    version = fingerprint([__version__, values, hashes])
    decoder = _deploy("decoder", Decoder, settings, settings.decoder, version).bind(values)
    encoder = _deploy(
        "encoder", Encoder, settings, settings.encoder, version, encoder_resources,
        user_config={"checkpoint": str(checkpoint)},
    ).bind(values)  # fmt: skip
    gateway = _deploy("gateway", rayserve.ingress()(HttpGateway), settings, settings.gateway, version)
    return gateway.bind(values, hashes, decoder, encoder)


def _deploy(
    name: str,
    cls: type,
    settings: ServeSettings,
    pool: PoolSettings,
    version: str,
    resources: dict[str, float] | None = None,
    **more: Any,
) -> Any:
    deployment = rayserve.deployment(
        cls,
        name=name,
        ray_actor_options={"num_cpus": pool.num_cpus, **(resources or {})},
        autoscaling_config=AutoscalingConfig(
            min_replicas=pool.min_replicas,
            max_replicas=pool.max_replicas,
            target_ongoing_requests=pool.target_ongoing_requests,
            upscale_delay_s=pool.upscale_delay_s,
            downscale_delay_s=pool.downscale_delay_s,
        ),
        max_ongoing_requests=pool.max_ongoing_requests,
        max_queued_requests=pool.max_queued_requests,
        backpressure_config=BackpressureConfig(status_code=503, retry_after_s=2),
        # A replica that is replaced ends its requests first: none of them can take longer than this.
        graceful_shutdown_timeout_s=settings.longest_request_s,
        graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=10,
        health_check_timeout_s=60,
        max_constructor_retry_count=3,
        logging_config=LOGGING,
        **more,
    )
    # Without this `serve.run` gives every deployment another version and starts all replicas anew, even where only a
    # user_config has changed. There is no public way to say it; `serve deploy` has versions of its own.
    deployment._version = version
    return deployment


def _tracing(settings: ServeSettings) -> Tracing:
    replica = rayserve.get_replica_context().replica_id
    return Tracing(settings, replica.deployment_id.name, replica.unique_id)


def _path(name: str | None) -> Path | None:
    return Path(name).expanduser() if name else None
