"""Training data from published runs: ``pairs`` and ``texts`` of one, ``images`` of another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.findings.codes import Codebook
from medfilip.findings.ontology import Ontology
from medfilip.knowledge.inject import InjectionMode
from medfilip.knowledge.knowledge import Knowledge
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest, read_manifest
from medfilip.storage.schemas import PAIRS, TEXTS
from medfilip.storage.shards import iter_shards, read_dataset
from medfilip.training.data import PairSet, TrainData, unseen_categories
from medfilip.training.images import Decode, ShardedImages, preprocessing
from medfilip.training.pairs import build_columns
from medfilip.training.settings import TrainSettings


class Loader(Protocol):
    """Makes the decoder for an input size; tests may bring their own."""

    def __call__(self, size: int) -> Decode:
        """Return the decoder."""
        ...


class TextTable(Mapping[int, str]):
    """The texts of a run by id, as columns: a dictionary of a million texts takes five times as much."""

    def __init__(self, table: pa.Table) -> None:
        table = table.sort_by("text_id").combine_chunks()
        self._ids = table["text_id"].to_numpy()
        self._texts = table["text"]

    def __getitem__(self, key: int) -> str:
        at = int(np.searchsorted(self._ids, key))
        if at == len(self._ids) or self._ids[at] != key:
            raise KeyError(key)
        return str(self._texts[at].as_py())

    def __iter__(self) -> Iterator[int]:
        return iter(self._ids.tolist())

    def __len__(self) -> int:
        return len(self._ids)


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
    source = _Source(pairs_run, images_run, settings, ontology, knowledge, loader)
    train, validation = source.pairs("train"), source.pairs("validation")
    if not len(train.columns.statement_F):
        raise MedfilipError(
            ErrorCode.NO_TRAINING_PAIRS,
            f"None of the {source.rows} pairs in {pairs_run} is in split 'train' and has a finding.",
            fix="Check the splits of the images and whether extraction found anything.",
        )
    return TrainData(train, validation, ontology, knowledge, synthetic, source.injection)


def _injection(pairs: Manifest) -> InjectionMode:
    """Read how attributes were written into the texts of a run."""
    stated = pairs.versions.get("injection", "conditioned")
    modes: tuple[InjectionMode, ...] = get_args(InjectionMode)
    found = next((mode for mode in modes if mode == stated), None)
    if found is None:
        raise MedfilipError(
            ErrorCode.SCHEMA_VERSION_MISMATCH,
            f"The pairs state the injection mode '{stated}', which this version does not know.",
            fix="Run the job that writes pairs again with this version of medfilip.",
        )
    return found


def load_split(
    pairs_run: str,
    images_run: str,
    settings: TrainSettings,
    split: str,
    *,
    ontology: Ontology,
    knowledge: Knowledge,
    loader: Loader = preprocessing,
) -> PairSet:
    """Read one split alone, with the checks of `load_pairs`; it may be empty."""
    return _Source(pairs_run, images_run, settings, ontology, knowledge, loader).pairs(split)


def check_inputs(pairs_run: str, images_run: str, ontology: Ontology) -> bool:
    """Refuse runs that do not belong together, by their manifests alone, and return whether the images are phantoms."""
    manifest, images_manifest = read_manifest(Location.parse(pairs_run)), read_manifest(Location.parse(images_run))
    _check(manifest, images_manifest, ontology)
    return images_manifest.counts.get("synthetic_images", 0) > 0


class _Source:
    """Two runs that belong together, whose texts and images all splits share."""

    def __init__(
        self,
        pairs_run: str,
        images_run: str,
        settings: TrainSettings,
        ontology: Ontology,
        knowledge: Knowledge,
        loader: Loader,
    ) -> None:
        self._run, images = Location.parse(pairs_run), Location.parse(images_run)
        self._manifest, images_manifest = read_manifest(self._run), read_manifest(images)
        _check(self._manifest, images_manifest, ontology)
        self.injection = _injection(self._manifest)
        self._by_study, self._knowledge = settings.unit == "study", knowledge
        self._texts = TextTable(read_dataset(self._run, self._manifest, TEXTS.name, ["text_id", "text"]))
        decode = loader(settings.model.image_size)
        self._images = ShardedImages(images, images_manifest, decode, cache_mb=settings.image_cache_mb)
        self._codebook = Codebook.of(ontology)
        categories = self._codebook.categories
        self._left_out = frozenset(categories.index(name) for name in unseen_categories(settings, ontology))

    @property
    def rows(self) -> int:
        return self._manifest.dataset(PAIRS.name).rows

    def pairs(self, split: str) -> PairSet:
        # Shard by shard: the rows of a large corpus take twenty times as much as its columns.
        shards = iter_shards(self._run, self._manifest, PAIRS.name)
        columns = build_columns(
            (table.filter(pc.equal(table["split"], split)) for table in shards),
            by_study=self._by_study,
            left_out=self._left_out,
        )
        return PairSet(columns, self._texts, self._images, self._codebook, self._knowledge, self.injection)


def _check(pairs: Manifest, images: Manifest, ontology: Ontology) -> None:
    coded_with = pairs.versions.get("ontology", ontology.fingerprint)
    if coded_with != ontology.fingerprint:
        raise MedfilipError(
            ErrorCode.SCHEMA_VERSION_MISMATCH,
            f"The pairs were coded with ontology {coded_with}; this version has {ontology.fingerprint}.",
            fix="Run the job that writes pairs again with this version of medfilip.",
        )
    if pairs.inputs.get("images", images.fingerprint) != images.fingerprint:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            "The pairs were made from another images run: their rows would point at other people's images.",
            fix="Give images= the run that the inject job was given.",
        )
