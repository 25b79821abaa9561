"""Finetune: what a checkpoint is worth with few labels, beside other initialisations at equal steps.

Every cell of the grid mode x initialisation x share of labels x seed is a resumable part. Strengths, steps and cuts are
chosen on the validation split; the test split is scored once, at the end of each cell.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_bytes
from medfilip.evaluation.study_truth import Corpus, not_of_this_corpus, study_truth
from medfilip.findings.ontology import load_ontology
from medfilip.findings.truth import ABSENT, UNKNOWN
from medfilip.model.locate import find_checkpoint, local_copy
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest, Shard, read_manifest, run_folder
from medfilip.storage.run import Run, open_run, register_file
from medfilip.transfer.cells import Cell, check_splits, grid
from medfilip.transfer.labelled import (
    UNFIT,
    Labelled,
    choose_labels,
    from_masks,
    from_truth,
    list_images,
    only,
)
from medfilip.transfer.segmenter import no_monai
from medfilip.transfer.settings import Init, Mode, ProbeSettings, TuneSettings
from pipelines.finetune_score import SCORED, probe_cells, score
from pipelines.job import Outcome, job_spec
from pipelines.ray_finetune import (
    CLASSIFY,
    LISTED,
    MODELS,
    SEGMENT,
    TuneTask,
    phantom_masks,
    read_table,
    tune_cells,
    write_table,
)
from pipelines.ray_group import GroupSettings, cluster_resources, placement
from pipelines.runtime import map_parts
from pipelines.sentences import NumberedShard, numbered_shards
from serve.cluster import ray_session

MODEL_FOLDERS: dict[str, str] = {"full": "model", "segment": "segmenter"}


class FinetuneSettings(GroupSettings):
    """Settings of ``medfilip finetune``."""

    checkpoint: str = Field(description="run of a pretrain job, or a checkpoint folder")
    images: str = Field(description="run of an ingest job with images")
    findings: str | None = Field(None, description="run of an extract job on their reports: the labels it states")
    phantom_truth: str | None = Field(
        None, description="corpus folder of a phantom run: the labels that were drawn, and masks for mode segment"
    )
    silent: Literal["unknown", "absent"] = Field(
        "unknown", description="what the silence of a report means; absent where reports list everything there is"
    )
    labels: tuple[str, ...] = Field((), description="categories to classify; empty: those with enough images")
    min_images: int = Field(
        5, ge=1, description="train and test images with and without a category it takes to be chosen"
    )
    segment: str = Field("pneumothorax", description="category whose masks are segmented")
    modes: tuple[Mode, ...] = Field(
        ("probe", "full"), min_length=1, description="probe (frozen tower), full (all weights), segment (U-Net)"
    )
    fractions: tuple[float, ...] = Field(
        (0.01, 0.1, 1.0), min_length=1, description="shares of the training patients whose labels are used, nested"
    )
    inits: tuple[Init, ...] = Field(
        ("checkpoint", "random", "imagenet"),
        min_length=1,
        description="what towers begin with; imagenet is left out, and said so, without init_from",
    )
    init_from: str | None = Field(
        None, description="Hugging Face vision model for imagenet: a folder, or a name such as microsoft/resnet-50"
    )
    seeds: tuple[int, ...] = Field(
        (0,), min_length=1, description="of the drawn patients, order, augmentation and random weights"
    )
    probe: ProbeSettings = Field(ProbeSettings(), description="the linear probe")
    tune: TuneSettings = Field(TuneSettings(), description="full fine-tuning and segmentation")
    resamples: int = Field(1000, ge=10, le=100_000, description="bootstrap resamples behind an interval")

    @field_validator("labels", "modes", "fractions", "inits", "seeds", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str | int | float) else value

    @field_validator("labels", "modes", "inits", "seeds", "fractions")
    @classmethod
    def _are_different(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a value is given twice")
        return value

    @field_validator("fractions")
    @classmethod
    def _are_shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < one <= 1 for one in value):
            raise ValueError("every share must be above 0 and at most 1")
        return tuple(sorted(value))

    @field_validator("seeds")
    @classmethod
    def _are_natural(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 0:
            raise ValueError("every seed must be at least 0")
        return value

    @model_validator(mode="after")
    def _check(self) -> FinetuneSettings:
        if self.init_from is not None and "imagenet" not in self.inits:
            raise ValueError("init_from is given, but inits has no imagenet")
        if self.measured_inits == ():
            raise ValueError("inits=[imagenet] needs init_from")
        if self.classifies and self.findings is None and self.phantom_truth is None:
            raise ValueError("labels come from findings or phantom_truth: give one of them")
        if "segment" in self.modes and self.phantom_truth is None:
            raise ValueError("mode segment needs the masks of phantom_truth")
        return self

    @property
    def classifies(self) -> bool:
        """Whether labels are needed."""
        return bool({"probe", "full"} & set(self.modes))

    @property
    def measured_inits(self) -> tuple[Init, ...]:
        """The initialisations that there are weights for."""
        return tuple(init for init in self.inits if init != "imagenet" or self.init_from is not None)

    def cells(self, *modes: Mode) -> list[Cell]:
        """Return the grid of some modes."""
        return grid([mode for mode in self.modes if mode in modes], self.measured_inits, self.fractions, self.seeds)


SETTINGS = FinetuneSettings


def run(settings: FinetuneSettings, *, new_run: bool = False) -> Outcome:
    """Measure the grid; see the module's text."""
    ontology = load_ontology()
    ontology.check_categories(settings.labels, "labels")
    ontology.check_categories([settings.segment], "segment")
    if "segment" in settings.modes and find_spec("monai") is None:
        raise no_monai()  # before anything is started
    images = run_folder(settings.images)
    checkpoint = find_checkpoint(Location.parse(settings.checkpoint))
    manifest, corpus = read_manifest(images), Corpus.of(settings.phantom_truth)
    spec = job_spec(
        "finetune",
        _config(settings),
        _inputs(settings, checkpoint, manifest, corpus),
        {"ontology": ontology.fingerprint},
    )
    with open_run(Location.parse(settings.root), spec, new_run=new_run) as finetune:
        storage = settings.storage_of(finetune)
        already_finished = finetune.manifest is not None
        if not already_finished:
            with ray_session(settings.ray, settings.ray.address):
                _measure(settings, finetune, images, manifest, checkpoint, storage, corpus)
        (storage / finetune.run_id).delete()
    return Outcome.of(finetune, *_next_steps(finetune), already_finished=already_finished)


def show(outcome: Outcome) -> None:
    """Print the table of a run."""
    from pipelines.finetune_table import print_table

    print_table(json.loads((Location.parse(outcome.location) / SCORED).read_bytes()))


def _config(settings: FinetuneSettings) -> dict[str, Any]:
    places = ("checkpoint", "images", "findings", "phantom_truth", "init_from")
    return {name: value for name, value in settings.semantic().items() if name not in places}


def _inputs(settings: FinetuneSettings, checkpoint: Location, images: Manifest, corpus: Corpus) -> dict[str, str]:
    from medfilip.transfer.towers import input_fingerprint

    inputs = {
        "checkpoint": sha256_bytes((checkpoint / "hashes.json").read_bytes()),
        "images": images.fingerprint,
    }
    if settings.findings is not None:
        inputs["findings"] = read_manifest(run_folder(settings.findings)).fingerprint
    if corpus.folder is not None:
        inputs["truth"] = corpus.fingerprint
    if settings.init_from is not None:
        inputs["init_from"] = input_fingerprint(settings.init_from)
    return inputs


def _measure(
    settings: FinetuneSettings, finetune: Run, images: Location, manifest: Manifest, checkpoint: Location,
    storage: Location, corpus: Corpus,
) -> None:  # fmt: skip
    staging, progress = finetune.staging, settings.progress
    place = placement(settings, storage, cluster_resources())
    with finetune.stage("list"):
        listed = _list(settings, staging, images, manifest)
        tables = _tables(settings, images, listed, corpus)
        for name, table in tables.items():
            write_table(staging / name, table.table())
    pretrained_on_phantoms = json.loads((checkpoint / "versions.json").read_bytes())["synthetic"]
    synthetic = manifest.counts.get("synthetic_images", 0) > 0 or bool(pretrained_on_phantoms)
    records: dict[str, dict[str, Any]] = {}
    if "probe" in settings.modes:
        with finetune.stage("probe"):
            records |= probe_cells(
                staging, images, manifest, checkpoint, tables[CLASSIFY], settings.cells("probe"), settings.probe,
                init_from=settings.init_from, progress=progress,
            )  # fmt: skip
    tuned = settings.cells("full", "segment")
    if tuned:
        task = TuneTask(
            run=finetune.run_id,
            staging=str(staging),
            images=str(images),
            checkpoint=str(checkpoint),
            init_from=settings.init_from,
            masks=settings.phantom_truth,
            category=settings.segment,
            cells=tuple(tuned),
            tune=settings.tune,
            synthetic=synthetic,
        )
        with finetune.stage("tune"):
            tune_cells(task, place, progress)
        records |= {cell.name: json.loads((staging / f"records/tune/{cell.name}.json").read_bytes()) for cell in tuned}
    with finetune.stage("score"):
        facts = _facts(settings, tables, listed)
        result = score(
            staging, tables, records, settings.cells("probe", "full", "segment"),
            checkpoint=local_copy(checkpoint), settings=_config(settings), facts=facts,
            absent=[init for init in settings.inits if init not in settings.measured_inits],
            synthetic=synthetic, resamples=settings.resamples,
        )  # fmt: skip
    (finetune.location / SCORED).write_bytes(result.model_dump_json(indent=2).encode())
    files = [register_file(finetune.location, SCORED), *_publish_models(finetune)]
    metrics = {
        f"{row.mode}_{row.init}_{row.fraction:g}_{row.metric}": row.value.value
        for row in result.rows
        if row.value is not None
    }
    finetune.publish({}, files=files, metrics=metrics, counts=_counts(tables), rejected=_rejected(listed))


def _list(settings: FinetuneSettings, staging: Location, images: Location, manifest: Manifest) -> pa.Table:
    work = partial(
        _list_shard,
        staging=staging,
        images=images,
        corpus=settings.phantom_truth if "segment" in settings.modes else None,
        category=settings.segment,
    )
    parts = map_parts(staging, "list", work, numbered_shards(manifest, "images"))
    listed = pa.concat_tables([read_table(staging / part["path"]) for part in parts])
    write_table(staging / LISTED, listed)
    return listed


def _list_shard(
    numbered: NumberedShard, *, staging: Location, images: Location, corpus: str | None, category: str
) -> dict[str, Any]:
    number, shard = numbered
    masks = partial(phantom_masks, corpus, images) if corpus is not None else None
    path = f"listed/part-{number:05d}.parquet"
    write_table(staging / path, list_images(images, shard, number, category=category, masks=masks))
    return {"path": path}


def _tables(settings: FinetuneSettings, images: Location, listed: pa.Table, corpus: Corpus) -> dict[str, Labelled]:
    tables = {}
    silent = ABSENT if settings.silent == "absent" else UNKNOWN
    findings = run_folder(settings.findings) if settings.findings is not None and corpus.folder is None else None
    truth = study_truth(findings, corpus, images, silent=silent)  # also where masks alone count: it checks the corpus
    if settings.classifies:
        labelled = from_truth(listed, settings.labels or truth.categories, truth)
        if not settings.labels:
            labelled = only(labelled, choose_labels(labelled, settings.min_images))
        if not labelled.labels:
            raise MedfilipError(
                ErrorCode.NOT_ENOUGH_DATA,
                f"No category has {settings.min_images} images with it and {settings.min_images} without, in train and "
                "in test.",
                fix="Give more studies, lower min_images, or set silent=absent if reports list everything there is.",
            )
        tables[CLASSIFY] = labelled
    if "segment" in settings.modes:
        if not any(state != UNKNOWN for state in listed["mask"].to_pylist()):
            raise not_of_this_corpus()
        tables[SEGMENT] = from_masks(listed, settings.segment)
    for labelled in tables.values():
        check_splits(labelled)
    return tables


def _facts(settings: FinetuneSettings, tables: dict[str, Labelled], listed: pa.Table) -> dict[str, Any]:
    source = "drawn by the phantom generator" if settings.phantom_truth is not None else "stated in the reports"
    facts: dict[str, Any] = {"truth": source, "images": listed.num_rows}
    for name, labelled in tables.items():
        facts[name.removesuffix(".parquet")] = {
            "labels": list(labelled.labels),
            **{split: len(labelled.rows(split)) for split in ("train", "validation", "test")},
        }
    return facts


def _counts(tables: dict[str, Labelled]) -> dict[str, int]:
    return {
        f"{name.removesuffix('.parquet')}_{split}_images": len(labelled.rows(split))
        for name, labelled in tables.items()
        for split in ("train", "validation", "test")
    }


def _rejected(listed: pa.Table) -> dict[str, int]:
    unfit = listed["mask"].to_pylist().count(UNFIT) if "mask" in listed.column_names else 0
    return {ErrorCode.MASK_UNFIT: unfit} if unfit else {}


def _publish_models(finetune: Run) -> Iterable[Shard]:
    for mode, folder in MODEL_FOLDERS.items():
        for file in (finetune.staging / f"{MODELS}/{mode}").children():
            (finetune.location / f"{folder}/{file.name}").write_bytes(file.read_bytes())
            yield register_file(finetune.location, f"{folder}/{file.name}")


def _next_steps(finetune: Run) -> Sequence[str]:
    assert finetune.manifest is not None
    published = {file.path for file in finetune.manifest.files}
    folders = [folder for folder in MODEL_FOLDERS.values() if f"{folder}/config.json" in published]
    return [f"open {finetune.location / f'{folder}/README.md'}" for folder in folders]
