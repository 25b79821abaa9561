"""Training pairs: rows of ``pairs`` and ``texts`` become batches of pixels, finding codes and drawn texts.

What a batch holds depends only on (seed, epoch, row): which variant of a finding's text is drawn and how the image is
augmented. It does not depend on the process that builds it.

Legend of tensor names: N images, S side, F findings, T texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.findings.codes import CERTAINTIES, Codebook
from medfilip.findings.mirror import can_mirror, mirror_code, mirror_text
from medfilip.findings.ontology import Ontology
from medfilip.knowledge.inject import training_texts
from medfilip.knowledge.knowledge import Knowledge
from medfilip.similarity.codes import FindingTensors
from medfilip.similarity.tables import VIEWS
from medfilip.storage.location import Location
from medfilip.storage.manifest import read_manifest
from medfilip.storage.schemas import PAIRS, TEXTS
from medfilip.storage.shards import read_dataset
from medfilip.training.augment import augment
from medfilip.training.images import Decode, ImageSource, ShardedImages, preprocessing
from medfilip.training.order import draw
from medfilip.training.settings import TrainSettings

_FLIP_STEPS = 1 << 20


@dataclass(frozen=True)
class Batch:
    """One process's part of a global batch.

    Attributes
    ----------
    pixels_N1SS
        float32 images.
    view_N
        int64 index into `medfilip.similarity.tables.VIEWS`.
    findings, owner_F
        All findings of the images, and the image (within this part) that each belongs to.
    texts, text_finding_T
        Drawn texts, and the finding that each one tells.
    """

    pixels_N1SS: Tensor
    view_N: Tensor
    findings: FindingTensors
    owner_F: Tensor
    texts: list[str]
    text_finding_T: Tensor


class PairSet:
    """Pairs of one split, with access to their images and texts.

    Parameters
    ----------
    rows
        Rows of ``pairs``.
    texts
        Text id → text.
    images
        Where the pixels come from.
    codebook
        Positions of categories, sites and severities.
    """

    def __init__(
        self, rows: Sequence[Mapping[str, Any]], texts: Mapping[int, str], images: ImageSource, codebook: Codebook
    ) -> None:
        self.rows, self.codebook = list(rows), codebook
        self._texts, self._images = texts, images
        missing = {i for row in self.rows for item in row["findings"] for i in item["text_ids"]} - texts.keys()
        if missing:
            raise MedfilipError(
                ErrorCode.INPUT_NOT_FOUND,
                f"{len(missing)} text ids of the pairs are not in dataset 'texts' (the first is {min(missing)}).",
                fix="Give pairs and texts of one run.",
            )

    def __len__(self) -> int:
        return len(self.rows)

    def pixels(self, index: Sequence[int]) -> Tensor:
        """Return the images of some rows, without augmentation; float32 [N, 1, S, S]."""
        arrays = [self._images.get(self.rows[i]["image_shard"], self.rows[i]["image_row"]) for i in index]
        return torch.from_numpy(np.stack(arrays))

    def statements(self, index: int) -> list[tuple[str, str]]:
        """Return (category, certainty) of each finding of a row."""
        names = self.codebook.categories
        return [(names[item["category"]], CERTAINTIES[item["certainty"]]) for item in self.rows[index]["findings"]]

    def texts_of(self, item: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the text variants of a finding of these pairs."""
        return tuple(self._texts[i] for i in item["text_ids"])

    def all_texts(self) -> list[str]:
        """Return the distinct texts that these pairs can draw, sorted."""
        return sorted({self._texts[i] for row in self.rows for item in row["findings"] for i in item["text_ids"]})

    def batch(self, index: Sequence[int], *, epoch: int, settings: TrainSettings, training: bool = True) -> Batch:
        """Build the batch of some rows in an epoch; without ``training`` nothing is augmented."""
        pixels_N1SS = self.pixels(index)
        flipped = [training and self._is_flipped(i, epoch, settings) for i in index]
        if training:
            seeds = [draw("augment", settings.seed, epoch, i) for i in index]
            pixels_N1SS = augment(pixels_N1SS, seeds, settings.augment, flipped)
        codes: list[Mapping[str, Any]] = []
        owners: list[int] = []
        texts: list[str] = []
        told: list[int] = []
        for position, i in enumerate(index):
            items = self.rows[i]["findings"]
            for item in _drawn(items, draw("texts", settings.seed, epoch, i), settings.max_texts):
                number = draw("variant", settings.seed, epoch, i, item)
                variants = self._variants(items[item], flipped=flipped[position])
                if variants:
                    texts.append(variants[number % len(variants)])
                    told.append(len(codes) + item)
            codes.extend(map(mirror_code, items) if flipped[position] else items)
            owners.extend([position] * len(items))
        views = [
            VIEWS.index(view) if (view := self.rows[i]["view"]) in VIEWS else VIEWS.index("unknown") for i in index
        ]
        return Batch(
            pixels_N1SS,
            torch.tensor(views),
            FindingTensors.from_rows(codes, self.codebook),
            torch.tensor(owners, dtype=torch.int64),
            texts,
            torch.tensor(told, dtype=torch.int64),
        )

    def _is_flipped(self, index: int, epoch: int, settings: TrainSettings) -> bool:
        if not settings.augment.enabled or not settings.augment.flip or self.rows[index]["view"] == "lateral":
            return False
        share = draw("flip", settings.seed, epoch, index) % _FLIP_STEPS / _FLIP_STEPS
        return share < settings.augment.flip and can_mirror(self.rows[index]["findings"], self.codebook)

    def _variants(self, item: Mapping[str, Any], *, flipped: bool) -> list[str]:
        """Return the texts that can be drawn for a finding; mirrored, those that can be told of the other side."""
        texts = [self._texts[i] for i in item["text_ids"]]
        return [text for text in map(mirror_text, texts) if text is not None] if flipped else texts


def _drawn(items: Sequence[Mapping[str, Any]], number: int, limit: int) -> list[int]:
    """Choose at most ``limit`` findings that have a text, in their order."""
    tellable = [i for i, item in enumerate(items) if item["text_ids"]]
    if len(tellable) <= limit:
        return tellable
    return sorted(np.random.default_rng(number).choice(tellable, size=limit, replace=False).tolist())


@dataclass(frozen=True)
class TrainData:
    """All that `medfilip.training.loop.fit` needs to know about the data."""

    train: PairSet
    validation: PairSet
    ontology: Ontology
    knowledge: Knowledge
    synthetic: bool


class Loader(Protocol):
    """Makes the decoder for an input size; tests may bring their own."""

    def __call__(self, size: int) -> Decode:
        """Return the decoder."""
        ...


def load_pairs(
    pairs_run: str,
    images_run: str,
    settings: TrainSettings,
    *,
    ontology: Ontology,
    knowledge: Knowledge,
    synthetic: bool,
    loader: Loader = preprocessing,
) -> TrainData:
    """Read the pairs and texts of one published run and the images of another.

    ``synthetic`` says that the images are phantoms; it goes into every checkpoint.

    Raises
    ------
    MedfilipError
        ``NO_TRAINING_PAIRS`` if the split ``train`` has no pair with a finding; ``SCHEMA_VERSION_MISMATCH`` if the
        integer codes belong to another ontology; the codes of `medfilip.storage` for unreadable runs.
    """
    run, images = Location.parse(pairs_run), Location.parse(images_run)
    manifest, images_manifest = read_manifest(run), read_manifest(images)
    coded_with = manifest.versions.get("ontology", ontology.fingerprint)
    if coded_with != ontology.fingerprint:
        raise MedfilipError(
            ErrorCode.SCHEMA_VERSION_MISMATCH,
            f"The pairs were coded with ontology {coded_with}; this version has {ontology.fingerprint}.",
            fix="Run the job that writes pairs again with this version of medfilip.",
        )
    if manifest.inputs.get("images", images_manifest.fingerprint) != images_manifest.fingerprint:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            "The pairs were made from another images run: their rows would point at other people's images.",
            fix="Give images= the run that the inject job was given.",
        )
    rows = read_dataset(run, manifest, PAIRS.name).to_pylist()
    table = read_dataset(run, manifest, TEXTS.name, ["text_id", "text"])
    texts = dict(zip(table["text_id"].to_pylist(), table["text"].to_pylist(), strict=True))
    source = ShardedImages(images, images_manifest, loader(settings.model.image_size), cache_mb=settings.image_cache_mb)
    codebook = Codebook.of(ontology)
    train, validation = (
        PairSet([row for row in rows if row["split"] == split], texts, source, codebook)
        for split in ("train", "validation")
    )
    if not any(row["findings"] for row in train.rows):
        raise MedfilipError(
            ErrorCode.NO_TRAINING_PAIRS,
            f"None of the {len(rows)} pairs in {run} is in split 'train' and has a finding.",
            fix="Check the splits of the images and whether extraction found anything.",
        )
    return TrainData(train, validation, ontology, knowledge, synthetic)


def vocabulary_texts(data: TrainData) -> list[str]:
    """Return the texts a tokenizer is trained on: those of the corpus, and what can be asked of any category."""
    known = [
        text
        for category in data.ontology.categories.values()
        for certainty in CERTAINTIES
        for text in (
            *training_texts({"category": category.id, "certainty": certainty}, data.knowledge, data.ontology),
            *category.terms,
        )
    ]
    return [*data.train.all_texts(), *known]
