"""Settings of the endpoint: every limit of every part of it, in one place.

Ray Serve's own defaults never time out, queue without end and hold five requests at a time, so none is left unsaid.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from medfilip.core.settings import Settings, operational
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.preprocess import DEFAULT_STORE_SIZE
from medfilip.knowledge.prompts import MAX_LABEL_CHARACTERS
from medfilip.standards.pacs import PacsSettings
from serve.cluster import LocalRaySettings


class PoolSettings(Settings):
    """How many replicas of a part run, and how much may wait for them."""

    min_replicas: int = operational(1, ge=1, le=1000, description="replicas that always run")
    max_replicas: int = operational(1, ge=1, le=1000, description="replicas under load")
    num_cpus: float = operational(0.5, ge=0, le=64, description="logical CPUs a replica holds")
    target_ongoing_requests: float = operational(2, gt=0, description="load of a replica beyond which one is added")
    upscale_delay_s: float = operational(10, ge=0, le=3600, description="load must last this long to add a replica")
    downscale_delay_s: float = operational(300, ge=0, le=86_400, description="and its absence, to remove one")
    max_ongoing_requests: int = operational(4, ge=1, le=10_000, description="requests in a replica at a time")
    max_queued_requests: int = operational(64, ge=1, le=100_000, description="requests that may wait; more get 503")

    @model_validator(mode="after")
    def _check_order(self) -> PoolSettings:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}")
        if self.target_ongoing_requests > self.max_ongoing_requests:
            raise ValueError("target_ongoing_requests is above max_ongoing_requests")
        return self


class DecoderSettings(PoolSettings):
    """The decoders: each handles one image at a time."""

    max_replicas: int = operational(2, ge=1, le=1000, description="replicas under load")


class EncoderSettings(PoolSettings):
    """The encoders: each holds the model and embeds images in batches."""

    num_cpus: float = operational(1, ge=0, le=64, description="logical CPUs a replica holds")
    num_gpus: float = operational(0, ge=0, le=8, description="share of a GPU a replica holds")
    device: Literal["cpu", "cuda"] = operational("cpu", description="where the model runs")
    target_ongoing_requests: float = operational(16, gt=0, description="load beyond which a replica is added")
    max_ongoing_requests: int = operational(64, ge=1, le=10_000, description="requests in a replica at a time")
    max_batch_size: int = operational(16, ge=1, le=1024, description="images embedded together")
    batch_wait_s: float = operational(0.01, ge=0, le=5, description="longest wait for a batch to fill")

    @model_validator(mode="after")
    def _check_batch(self) -> EncoderSettings:
        if self.max_batch_size > self.max_ongoing_requests:
            raise ValueError(f"max_batch_size {self.max_batch_size} is above max_ongoing_requests")
        if self.device == "cuda" and self.num_gpus == 0:
            raise ValueError("device cuda needs num_gpus above 0")
        return self


class GatewaySettings(PoolSettings):
    """The gateways: they read requests and hold their bodies in memory."""

    # Far more than are admitted: whatever is refused is refused by the gateway, in the shape of every other error.
    target_ongoing_requests: float = operational(32, gt=0, description="load beyond which a replica is added")
    max_ongoing_requests: int = operational(512, ge=2, le=10_000, description="connections in a replica at a time")
    max_queued_requests: int = operational(512, ge=1, le=100_000, description="connections that may wait")
    max_admitted: int = operational(16, ge=1, le=1000, description="requests with images at a time; more get 503")


class ServeSettings(Settings):
    """What the endpoint can be told; API keys come from MEDFILIP_API_KEYS or MEDFILIP_API_KEYS_FILE only."""

    checkpoint: str = Field(
        "",
        description="folder of the checkpoint, or of the run or demo that made it; empty: the package's synthetic one",
    )
    host: str = operational("127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = operational(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    request_timeout_s: float = operational(30.0, gt=0, le=3600, description="longest work on one request")
    upload_timeout_s: float = operational(60.0, gt=0, le=3600, description="longest upload of one request")
    upload_grace_s: float = operational(10.0, gt=0, le=3600, description="time an upload has before its pace counts")
    min_upload_bytes_per_s: int = operational(
        16 * 2**10, ge=1, le=2**31, description="pace of an upload after upload_grace_s; a slower one gets 408"
    )
    keep_alive_timeout_s: int = operational(30, ge=1, le=3600, description="life of an idle connection")
    max_body_bytes: int = Field(64 * 2**20, ge=1024, le=2**31, description="size of a request; a larger one gets 413")
    max_images: int = Field(4, ge=1, le=32, description="images of one study")
    max_attributes: int = Field(10, ge=0, le=100, description="visual attributes that a finding may tell")
    max_labels: int = Field(64, ge=1, le=1000, description="labels of one request")
    max_label_characters: int = Field(200, ge=1, le=MAX_LABEL_CHARACTERS, description="length of one label")
    store_size: int = Field(
        DEFAULT_STORE_SIZE, ge=64, le=4096, description="long side before the model's input; as it was in ingest"
    )
    limits: ImageLimits = Field(ImageLimits(), description="bounds on image files, checked before decoding")
    unfamiliar_from: float = Field(
        1.0, gt=0, le=2, description="unfamiliarity from which nothing is decided; above 1: everything is"
    )
    allow_anonymous: bool = Field(
        False, description="answer without a key from MEDFILIP_API_KEYS or MEDFILIP_API_KEYS_FILE"
    )
    api_key_hashes: tuple[str, ...] = operational(
        (), description="SHA-256 in hex of further API keys, beside those of the environment"
    )
    page: bool = operational(True, description="whether there is a page at /, with phantoms to try")
    keys_file: str | None = operational(None, description="file of API keys that 'medfilip keys' keeps")
    requests_per_minute: int = operational(
        600, ge=1, le=1_000_000, description="requests of one API key in any minute, in each gateway; more get 429"
    )
    concurrent_requests: int = operational(
        8, ge=1, le=10_000, description="requests of one API key at a time, in each gateway; more get 429"
    )
    audit_folder: str | None = operational(
        None, description="folder of the audit log, on each node; without it none is kept"
    )
    trace_folder: str | None = operational(
        None, description="folder of the spans of requests as JSON lines, on each node; without it none are written"
    )
    trace_otlp: bool = operational(
        False, description="send spans to the OpenTelemetry collector that OTEL_EXPORTER_OTLP_ENDPOINT names"
    )
    trace_share: float = operational(
        1.0, ge=0, le=1, description="share of requests that are traced, of those whose caller does not say"
    )
    pacs: PacsSettings = operational(PacsSettings(), description="archives that may be read and written (DICOMweb)")
    gateway: GatewaySettings = operational(GatewaySettings(), description="the HTTP side")
    decoder: DecoderSettings = operational(DecoderSettings(), description="files to pixels")
    encoder: EncoderSettings = operational(EncoderSettings(), description="pixels to scores")
    ray: LocalRaySettings = operational(
        LocalRaySettings(object_store_mb=512), description="the local Ray of 'medfilip serve'"
    )

    @property
    def longest_request_s(self) -> float:
        """Seconds after which any request has ended: its upload, its work, and what is stored in an archive."""
        storing_s = self.pacs.total_timeout_s if self.pacs.archives else 0.0
        return self.upload_timeout_s + self.request_timeout_s + storing_s + 5
