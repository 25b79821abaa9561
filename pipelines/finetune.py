"""Finetune: what a checkpoint is worth with few labels, beside other initialisations at equal steps.

Every cell of the grid mode x initialisation x share of labels x seed is a resumable part. Strengths, steps and cuts are
chosen on the validation split; the test split is scored once, at the end of each cell.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_bytes
from medfilip.evaluation.protocols.masks import CATEGORY as MASKED
from medfilip.evaluation.protocols.masks import PROTOCOL as MASKS_OF
from medfilip.evaluation.study_truth import Corpus
from medfilip.evaluation.truth import Truth
from medfilip.findings.ontology import load_ontology
from medfilip.findings.truth import ABSENT, UNKNOWN
from medfilip.model.locate import find_checkpoint, local_copy
from medfilip.storage.location import Location
from medfilip.storage.manifest import Shard, run_folder
from medfilip.storage.run import Run, open_run, register_file
from medfilip.transfer.cells import Cell, check_splits, grid
from medfilip.transfer.labelled import (
    UNFIT,
    Labelled,
    choose_labels,
    from_masks,
    from_truth,
    only,
)
from medfilip.transfer.segmenter import no_monai
from medfilip.transfer.settings import Init, Mode, ProbeSettings, TuneSettings
from pipelines.finetune_data import Given, OfDataSet, OfRuns, Source, list_given, rejected_counts, write_table
from pipelines.finetune_score import SCORED, probe_cells, score
from pipelines.job import Outcome, job_spec
from pipelines.protocol_images import DataSet, DataSetSettings
from pipelines.ray_finetune import CLASSIFY, MODELS, SEGMENT, TuneTask, tune_cells
from pipelines.ray_group import GroupSettings, cluster_resources, placement
from serve.cluster import ray_session

MODEL_FOLDERS: dict[str, str] = {"full": "model", "segment": "segmenter"}


class FinetuneSettings(GroupSettings, DataSetSettings):
    """Settings of ``medfilip finetune``."""

    checkpoint: str = Field(description="run of a pretrain job, or a checkpoint folder")
    images: str | None = Field(None, description="run of an ingest job with images")
    findings: str | None = Field(None, description="run of an extract job on their reports: the labels it states")
    phantom_truth: str | None = Field(
        None, description="corpus folder of a phantom run: the labels that were drawn, and masks for mode segment"
    )
    protocol: str | None = Field(
        None,
        description="in place of images and labels: a public data set with the splits, labels and checks of its "
        "protocol ('medfilip evaluate protocol --list'); siim_acr has masks for mode segment",
    )
    data: str | None = Field(None, description="with protocol: folder of the data set as it is shipped")
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
        if (self.protocol is None) != (self.data is None):
            raise ValueError("protocol and data go together: which data set, and where it lies")
        if self.protocol is None:
            self._check_runs()
        elif self.images is not None or self.findings is not None or self.phantom_truth is not None:
            raise ValueError("a protocol brings its own images and labels: leave images, findings, phantom_truth out")
        elif "segment" in self.modes and (self.protocol, self.segment) != (MASKS_OF, MASKED):
            raise ValueError(f"of all protocols, {MASKS_OF} alone has masks, of {MASKED}")
        return self

    def _check_runs(self) -> None:
        if self.images is None:
            raise ValueError("give images, or protocol and data")
        if self.classifies and self.findings is None and self.phantom_truth is None:
            raise ValueError("labels come from findings or phantom_truth: give one of them")
        if "segment" in self.modes and self.phantom_truth is None:
            raise ValueError(f"mode segment needs the masks of phantom_truth or of protocol={MASKS_OF}")

    def source(self) -> Source:
        """Return where images and truth come from; of a data set, once it has passed its checks."""
        masked = "segment" in self.modes
        if self.protocol is not None and self.data is not None:
            return OfDataSet(DataSet.of(self.protocol, self.data, self), masked)
        assert self.images is not None
        return OfRuns(
            run_folder(self.images),
            run_folder(self.findings) if self.findings is not None else None,
            Corpus.of(self.phantom_truth),
            ABSENT if self.silent == "absent" else UNKNOWN,
            masked,
        )

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
    checkpoint = find_checkpoint(Location.parse(settings.checkpoint))
    source = settings.source()
    spec = job_spec(
        "finetune", _config(settings), _inputs(settings, checkpoint, source), {"ontology": ontology.fingerprint}
    )
    with open_run(Location.parse(settings.root), spec, new_run=new_run) as finetune:
        storage = settings.storage_of(finetune)
        already_finished = finetune.manifest is not None
        if not already_finished:
            with ray_session(settings.ray, settings.ray.address):
                _measure(settings, finetune, source, checkpoint, storage)
        (storage / finetune.run_id).delete()
        if isinstance(source, OfDataSet):
            source.data_set.keep_lock()
    return Outcome.of(finetune, *_next_steps(finetune), already_finished=already_finished)


def show(outcome: Outcome) -> None:
    """Print the table of a run."""
    from pipelines.finetune_table import print_table

    print_table(json.loads((Location.parse(outcome.location) / SCORED).read_bytes()))


def _config(settings: FinetuneSettings) -> dict[str, Any]:
    places = ("checkpoint", "images", "findings", "phantom_truth", "data", "init_from")
    return {name: value for name, value in settings.semantic().items() if name not in places}


def _inputs(settings: FinetuneSettings, checkpoint: Location, source: Source) -> dict[str, str]:
    from medfilip.transfer.towers import input_fingerprint

    inputs = {"checkpoint": sha256_bytes((checkpoint / "hashes.json").read_bytes()), **source.inputs()}
    if settings.init_from is not None:
        inputs["init_from"] = input_fingerprint(settings.init_from)
    return inputs


def _measure(
    settings: FinetuneSettings, finetune: Run, source: Source, checkpoint: Location, storage: Location
) -> None:
    staging, progress = finetune.staging, settings.progress
    place = placement(settings, storage, cluster_resources())
    with finetune.stage("list"):
        given = source.ready(finetune, progress)
        listed = list_given(given, staging, settings.segment)
        tables = _tables(settings, listed, given.truth)
        for name, table in tables.items():
            write_table(staging / name, table.table())
    pretrained_on_phantoms = json.loads((checkpoint / "versions.json").read_bytes())["synthetic"]
    synthetic = given.synthetic or bool(pretrained_on_phantoms)
    records: dict[str, dict[str, Any]] = {}
    if "probe" in settings.modes:
        with finetune.stage("probe"):
            records |= probe_cells(
                staging, given.images, given.manifest, checkpoint, tables[CLASSIFY], settings.cells("probe"),
                settings.probe, init_from=settings.init_from, progress=progress,
            )  # fmt: skip
    tuned = settings.cells("full", "segment")
    if tuned:
        task = TuneTask(
            run=finetune.run_id,
            staging=str(staging),
            images=str(given.images),
            checkpoint=str(checkpoint),
            init_from=settings.init_from,
            masks=given.masks,
            category=settings.segment,
            cells=tuple(tuned),
            tune=settings.tune,
            synthetic=synthetic,
        )
        with finetune.stage("tune"):
            tune_cells(task, place, progress)
        records |= {cell.name: json.loads((staging / f"records/tune/{cell.name}.json").read_bytes()) for cell in tuned}
    with finetune.stage("score"):
        facts = _facts(given, tables, listed)
        result = score(
            staging, tables, records, settings.cells("probe", "full", "segment"),
            checkpoint=local_copy(checkpoint), settings=_config(settings), facts=facts,
            absent=[init for init in settings.inits if init not in settings.measured_inits],
            synthetic=synthetic, resamples=settings.resamples,
        )  # fmt: skip
    outputs = {SCORED: result.model_dump_json(indent=2).encode(), **given.files}
    for name, content in outputs.items():
        (finetune.location / name).write_bytes(content)
    files = [*(register_file(finetune.location, name) for name in outputs), *_publish_models(finetune)]
    metrics = {
        f"{row.mode}_{row.init}_{row.fraction:g}_{row.metric}": row.value.value
        for row in result.rows
        if row.value is not None
    }
    unfit = listed["mask"].to_pylist().count(UNFIT) if "mask" in listed.column_names else 0
    rejected = rejected_counts(given, unfit)
    finetune.publish({}, files=files, metrics=metrics, counts=_counts(tables), rejected=rejected)


def _tables(settings: FinetuneSettings, listed: pa.Table, truth: Truth) -> dict[str, Labelled]:
    tables = {}
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
        tables[SEGMENT] = from_masks(listed, settings.segment)
    for labelled in tables.values():
        check_splits(labelled)
    return tables


def _facts(given: Given, tables: dict[str, Labelled], listed: pa.Table) -> dict[str, Any]:
    facts: dict[str, Any] = {**given.facts, "images": listed.num_rows}
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
