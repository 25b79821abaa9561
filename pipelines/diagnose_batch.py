"""Diagnose a batch: studies of a folder, a bucket, a table or an ingest → diagnoses, with the endpoint's own code.

Files are taken in, embedded and answered by what the endpoint's decoders and encoders compute, so that a file gives the
same numbers here, there and from ``medfilip.load(…).diagnose``. What is refused is counted, and costs no other file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from medfilip.answers import INTENDED_USE, ModelCard, ModelFacts
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_bytes
from medfilip.core.ids import pseudonym
from medfilip.core.secrets import project_key
from medfilip.core.settings import Settings, operational
from medfilip.findings.ontology import load_ontology
from medfilip.imaging.corpora import ImageCorpus, ImageKind, list_images
from medfilip.imaging.image_columns import ImageColumns
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.listing import ImageListing
from medfilip.imaging.preprocess import DEFAULT_STORE_SIZE
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.knowledge.prompts import MAX_LABEL_CHARACTERS
from medfilip.model.locate import DEFAULT_CHECKPOINT, find_checkpoint, local_copy
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest, Shard, read_manifest, run_folder
from medfilip.storage.run import RUN_FILE, Run, open_run, register_file
from medfilip.storage.schemas import REJECTED
from medfilip.storage.shards import write_shard
from pipelines.job import JobSettings, Outcome, job_spec
from pipelines.model_pool import ModelPool
from pipelines.progress import ProgressPrinter
from pipelines.runtime import no_progress
from pipelines.study_answers import OUTCOMES, answer_studies
from pipelines.study_images import FileImages, ImageSource, StoredImages
from pipelines.study_stages import RejectedRows, encode_images, group_studies
from serve.cluster import ray_session

if TYPE_CHECKING:
    from medfilip.model.question import Question

SUMMARY = "summary.json"
_PLACES = ("checkpoint", "images", "image_table")


class BatchEncoderSettings(Settings):
    """The actors that keep the model; named as the endpoint's encoders."""

    min_replicas: int = operational(1, ge=1, le=1000, description="actors that always run")
    max_replicas: int = operational(1, ge=1, le=1000, description="actors while there is work for them")
    num_cpus: float = operational(1, gt=0, le=64, description="logical CPUs an actor holds")
    num_gpus: float = operational(0, ge=0, le=8, description="share of a GPU an actor holds")
    device: Literal["cpu", "cuda"] = operational("cpu", description="where the model runs")
    max_batch_size: int = operational(64, ge=1, le=1024, description="images embedded together")

    @model_validator(mode="after")
    def _check(self) -> BatchEncoderSettings:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}")
        if self.device == "cuda" and self.num_gpus == 0:
            raise ValueError("device cuda needs num_gpus above 0")
        return self


class DiagnoseBatchSettings(JobSettings):
    """Settings of ``medfilip diagnose-batch``; what the endpoint has too is named as there."""

    images: str = Field(
        description="folder or s3:// prefix of DICOM, PNG and JPEG files, read with all its subfolders; a table of "
        "them; or a run of ingest",
    )
    image_kind: ImageKind = Field("auto", description="shape of the images: auto, folder, mimic, nih, openi or table")
    image_table: str | None = Field(None, description="table about the images: paths, studies, views")
    image_columns: ImageColumns = Field(
        ImageColumns(), description="names of the image table's columns; looked for where not given"
    )
    checkpoint: str = Field(
        "",
        description="folder of the checkpoint, or of the run or demo that made it; empty: the package's synthetic one",
    )
    labels: tuple[str, ...] = Field(
        (), description="category ids, names or short texts; empty: those the model was calibrated for"
    )
    described: tuple[str, ...] = Field((), description="new labels in words, each 'NAME: phrase; phrase'")
    operating_point: Literal["f1", "youden", "sensitivity"] | None = Field(
        None, description="rule of the thresholds: f1, youden, sensitivity; empty: the checkpoint's own"
    )
    threshold: float | None = Field(None, ge=0, le=1, description="one probability for all labels instead")
    attributes: int = Field(0, ge=0, le=100, description="visual attributes that a finding tells")
    unfamiliar_from: float = Field(
        1.0, gt=0, le=2, description="unfamiliarity from which nothing is decided; above 1: everything is"
    )
    max_images: int = Field(32, ge=1, le=1000, description="images of one study; a study with more is refused")
    store_size: int = Field(
        DEFAULT_STORE_SIZE, ge=64, le=4096, description="long side before the model's input; as it was in ingest"
    )
    limits: ImageLimits = Field(ImageLimits(), description="bounds on image files, checked before decoding")
    keep_paths: bool = Field(
        False, description="keep paths of files readable: where none holds a patient's name or number"
    )
    studies_per_shard: int = Field(1000, ge=1, le=100_000, description="studies in an output file")
    encoder: BatchEncoderSettings = operational(BatchEncoderSettings(), description="pixels to scores")
    quiet: bool = operational(False, description="show no progress")


SETTINGS = DiagnoseBatchSettings


def run(settings: DiagnoseBatchSettings, *, new_run: bool = False) -> Outcome:
    """Diagnose every study of the images; see the module's text."""
    question = _question(settings)
    checkpoint = find_checkpoint(Location.parse(settings.checkpoint or DEFAULT_CHECKPOINT))
    images = run_folder(settings.images)
    ingested = read_manifest(images) if (images / RUN_FILE).exists() else None
    listing = None if ingested else _list_images(settings)
    key = project_key()
    spec = job_spec(
        "diagnose_batch",
        {name: value for name, value in settings.semantic().items() if name not in _PLACES},
        inputs={
            "images": ingested.fingerprint if ingested else listing.fingerprint() if listing else "",
            "checkpoint": sha256_bytes((checkpoint / "hashes.json").read_bytes()),
        },
        versions={
            "ontology": load_ontology().fingerprint,
            "knowledge": load_knowledge().fingerprint,
            # Another key gives other pseudonyms: that is another result.
            "project_key": pseudonym(key, "check", "project") if listing else "",
        },
    )
    with open_run(Location.parse(settings.root), spec, new_run=new_run) as batch:
        if batch.manifest is not None:
            return Outcome.of(batch, already_finished=True)
        card = _checked_card(checkpoint, question)
        pool = _pool(settings, checkpoint, card.image_size)
        source = _source(settings, batch, listing, images, ingested, key, pool.image_size)
        _diagnose(settings, batch, source, question, pool, card, others=listing.others if listing else None)
    return Outcome.of(batch)


def _diagnose(
    settings: DiagnoseBatchSettings,
    batch: Run,
    source: ImageSource,
    question: Question,
    pool: ModelPool,
    card: ModelCard,
    *,
    others: int | None,
) -> None:
    show = no_progress if settings.quiet else ProgressPrinter().stage
    with ray_session(settings.ray, settings.ray.address):
        pool.check_gpus()
        with batch.stage("encode"):
            encoded, rejected = encode_images(source, batch.staging, pool, show)
        studies, more = group_studies(encoded, settings.max_images)
        rejected += more
        if not studies:
            reasons = dict(Counter(str(row["code"]) for row in rejected))
            raise MedfilipError(
                ErrorCode.INPUT_EMPTY,
                f"No study could be diagnosed; refused: {reasons}.",
                fix="Check that 'images' holds chest radiographs.",
            )
        with batch.stage("answer"):
            records = answer_studies(
                batch.location, batch.staging, studies, question, pool, settings.studies_per_shard, show
            )
    _publish(batch, records, rejected, card, listed=sum(source.sizes()), others=others)


def _question(settings: DiagnoseBatchSettings) -> Question:
    """Read the question with the endpoint's own rules, and its largest limits.

    Raises
    ------
    MedfilipError
        ``REQUEST_INVALID``, naming the setting and its limit; ``CONFIG_INVALID`` for two labels of one name.
    """
    from serve.request import read_question  # brings Starlette
    from serve.settings import ServeSettings

    single = {name: getattr(settings, name) for name in ("operating_point", "threshold", "attributes")}
    fields: dict[str, Sequence[str]] = {"labels": settings.labels, "described": settings.described}
    fields |= {name: [str(value)] for name, value in single.items() if value is not None}
    question, _ = read_question(
        fields, ServeSettings(max_labels=1000, max_attributes=100, max_label_characters=MAX_LABEL_CHARACTERS)
    )
    names = [*question.labels, *(item.name for item in question.described)]
    if len(set(names)) < len(names):
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            "Two labels have one name: rows are told apart by it.",
            fix="Name the entries of 'described' otherwise.",
        )
    return question


def _list_images(settings: DiagnoseBatchSettings) -> ImageListing:
    table = Location.parse(settings.image_table) if settings.image_table else None
    corpus = ImageCorpus(Location.parse(settings.images), settings.image_kind, table, settings.image_columns)
    return list_images(corpus, load_ontology())


def _pool(settings: DiagnoseBatchSettings, checkpoint: Location, image_size: int) -> ModelPool:
    encoder = settings.encoder
    return ModelPool(
        checkpoint=checkpoint,
        image_size=image_size,
        unfamiliar_from=settings.unfamiliar_from,
        device=encoder.device,
        max_batch_size=encoder.max_batch_size,
        replicas=(encoder.min_replicas, encoder.max_replicas),
        num_cpus=encoder.num_cpus,
        num_gpus=encoder.num_gpus,
    )


def _checked_card(checkpoint: Location, question: Question) -> ModelCard:
    """Load the model here, so that a wrong checkpoint is told before anything is read; return its card."""
    from serve.encoding import EncoderService

    service = EncoderService(local_copy(checkpoint))
    if not (question.labels or question.described or any(label.default for label in service.labels())):
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID, "There are no labels to diagnose.", fix="Give some: labels=[pneumothorax]."
        )
    return service.card()


def _source(
    settings: DiagnoseBatchSettings,
    batch: Run,
    listing: ImageListing | None,
    images: Location,
    ingested: Manifest | None,
    key: bytes,
    image_size: int,
) -> ImageSource:
    if ingested is not None:
        return StoredImages.of(images, ingested, image_size)
    assert listing is not None
    return FileImages.of(
        listing,
        batch.staging / "images_listing.parquet",
        key=key,
        limits=settings.limits,
        store_size=settings.store_size,
        image_size=image_size,
        keep_paths=settings.keep_paths,
    )


def _publish(
    batch: Run,
    records: Sequence[dict[str, Any]],
    rejected: RejectedRows,
    card: ModelCard,
    *,
    listed: int,
    others: int | None,
) -> None:
    shards = {
        name: [Shard(**record["shards"][name]) for record in records] for name in ("diagnoses", "diagnosed_images")
    }
    refused = write_shard(batch.location, "rejected/part-00000.parquet", REJECTED, REJECTED.from_rows(rejected))
    labels: dict[str, Counter[str]] = {}
    abstentions: Counter[str] = Counter()
    for record in records:
        abstentions.update(record["abstentions"])
        for label, found in record["labels"].items():
            labels.setdefault(label, Counter()).update(found)
    model = ModelFacts(
        fingerprint=card.fingerprint,
        label_set=records[0]["label_set"],
        code_version=card.code_version,
        training_data=card.training_data,
    )
    summary = {
        "model": model.model_dump(),
        "intended_use": INTENDED_USE,
        "labels": {label: {name: found[name] for name in OUTCOMES} for label, found in labels.items()},
        "abstentions": dict(sorted(abstentions.items())),
    }
    (batch.location / SUMMARY).write_bytes(json.dumps(summary, indent=2).encode())
    outcomes = sum(labels.values(), Counter[str]())
    counts = {
        "studies": sum(int(record["studies"]) for record in records),
        "images_listed": listed,
        "present": outcomes["present"],
        "absent": outcomes["absent"],
        "abstained": outcomes.total() - outcomes["present"] - outcomes["absent"],
    }
    counts |= {f"studies_{reason}": number for reason, number in sorted(abstentions.items())}
    counts |= {"files_of_other_kinds": others} if others is not None else {}
    batch.publish(
        {**shards, "rejected": [refused]},
        counts=counts,
        rejected=Counter(str(row["code"]) for row in rejected),
        files=[register_file(batch.location, SUMMARY)],
    )


def show(outcome: Outcome) -> None:
    """Print how often each label was called present or absent, and how often and why nothing was decided."""
    summary = json.loads((Location.parse(outcome.location) / SUMMARY).read_bytes())
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("label", overflow="fold")
    for name in OUTCOMES:
        table.add_column(name if name in OUTCOMES[:2] else f"{name}*", justify="right", no_wrap=True)
    for label, found in sorted(summary["labels"].items(), key=lambda item: (-item[1]["present"], item[0])):
        cells = [f"{found[name]:,}" if found[name] else "[dim]–[/]" for name in OUTCOMES]
        table.add_row(escape(label.replace("_", " ")), *cells)
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "[dim]* nothing decided: too near the threshold; no view that can show it; or the whole study "
        "(no chest, or unlike what the model knows).[/]"
    )
    console.print(f"[dim]{summary['model']['training_data']}; {summary['intended_use']}.[/]")
