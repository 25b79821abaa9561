"""Training pairs: rows of ``pairs`` and ``texts`` become batches of pixels, finding codes and drawn texts.

What a batch holds depends only on (seed, epoch, unit): which images of a study and which variants of its findings'
texts are drawn, how the images are augmented, which texts are altered. It does not depend on the process that builds
it.

Legend of tensor names: I images, N units (studies, or single images), S side, F findings, T texts, R ranked pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.findings.codes import CERTAINTIES, NONE, Codebook
from medfilip.findings.mirror import can_mirror, mirror_code, mirror_text
from medfilip.findings.ontology import Ontology
from medfilip.knowledge.inject import InjectionMode, training_texts
from medfilip.knowledge.knowledge import Knowledge
from medfilip.knowledge.wordings import wordings
from medfilip.model.tokenizer import Tokens
from medfilip.similarity.codes import FindingTensors
from medfilip.similarity.tables import VIEWS
from medfilip.training.hard_negatives import alterations, changed_slot, outranks
from medfilip.training.images import ImageSource
from medfilip.training.order import draw
from medfilip.training.pairs import Columns, Ints, Statement
from medfilip.training.settings import TrainSettings

_SHARE_STEPS = 1 << 20
_SIGNED = 1 << 63
_LATERAL, _EVERY_VIEW = VIEWS.index("lateral"), VIEWS.index("unknown")


@dataclass(frozen=True)
class Batch:
    """One process's part of a global batch.

    Attributes
    ----------
    pixels_I1SS
        float32 images, not augmented yet.
    seed_I, flipped_I
        int64 and bool: what the augmentation of each image depends on.
    unit_I
        int64, the unit (within this part) that each image belongs to.
    view_N
        int64 index into `medfilip.similarity.tables.VIEWS`; a unit with several views sees everything.
    findings, owner_F
        All findings of the units and the unit that each belongs to; those of altered texts belong to none and have
        the number of units as their owner.
    texts, told_T
        Drawn texts, and the finding that each one tells.
    finding_texts
        The canonical text of each finding: what ``text_cosine`` compares.
    ranked_R3
        int64, of each pair that is ranked: unit, its own text, and the altered text that must score lower.
    augmented
        Whether the images are to be augmented.
    tokens
        The texts as tokens, if somebody has prepared them.
    """

    pixels_I1SS: Tensor
    seed_I: Tensor
    flipped_I: Tensor
    unit_I: Tensor
    view_N: Tensor
    findings: FindingTensors
    owner_F: Tensor
    texts: list[str]
    told_T: Tensor
    finding_texts: list[str]
    ranked_R3: Tensor
    augmented: bool
    tokens: Tokens | None = None

    def __len__(self) -> int:
        return len(self.view_N)


class PairSet:
    """Units of one split, with access to their images and texts.

    Parameters
    ----------
    columns
        The pairs.
    texts
        Text id → text.
    images
        Where the pixels come from.
    codebook
        Positions of categories, sites and severities.
    knowledge, injection
        Where altered texts come from.
    """

    def __init__(
        self,
        columns: Columns,
        texts: Mapping[int, str],
        images: ImageSource,
        codebook: Codebook,
        knowledge: Knowledge,
        injection: InjectionMode = "conditioned",
    ) -> None:
        self._injection: InjectionMode = injection
        self.columns, self.codebook, self.knowledge = columns, codebook, knowledge
        self._texts, self._images = texts, images
        self._altered: dict[tuple[Any, ...], tuple[str, ...]] = {}
        self.count_S = _counts(columns)
        self.severities = _told_severities(columns)
        missing = {i for statement in columns.statements for i in statement.text_ids if i not in texts}
        if missing:
            raise MedfilipError(
                ErrorCode.INPUT_NOT_FOUND,
                f"{len(missing)} text ids of the pairs are not in dataset 'texts' (the first is {min(missing)}).",
                fix="Give pairs and texts of one run.",
            )

    def __len__(self) -> int:
        return len(self.columns)

    def pixels(self, images: Sequence[int] | Ints, threads: Executor | None = None) -> Tensor:
        """Return some images by their position in the columns, not augmented; float32 [I, 1, S, S]."""
        places = [(int(self.columns.shard_I[at]), int(self.columns.row_I[at])) for at in images]
        get = self._images.get
        found = threads.map(lambda place: get(*place), places) if threads else (get(*place) for place in places)
        return torch.from_numpy(np.stack(list(found)))

    def images_of(self, unit: int, limit: int) -> list[int]:
        """Return the images of a unit that evaluation looks at: at most ``limit``, one of each view first."""
        images, views = list(self.columns.images_of(unit)), self.columns.view_I
        firsts = {int(views[at]): at for at in reversed(images)}
        chosen = [firsts[view] for view in sorted(firsts)]
        return sorted((chosen + [at for at in images if at not in chosen])[:limit])

    def statements(self, unit: int) -> list[tuple[str, str]]:
        """Return (category, certainty) of each finding of a unit."""
        names = self.codebook.categories
        return [
            (names[item.code["category"]], CERTAINTIES[item.code["certainty"]])
            for item in self.columns.statements_of(unit)
        ]

    def texts_of(self, statement: Statement) -> tuple[str, ...]:
        """Return the text variants of a finding of these pairs."""
        return tuple(self._texts[i] for i in statement.text_ids)

    def all_texts(self) -> list[str]:
        """Return the distinct texts that these pairs can draw, sorted."""
        return sorted({self._texts[i] for statement in self.columns.statements for i in statement.text_ids})

    def batch(
        self,
        units: Sequence[int],
        *,
        epoch: int,
        settings: TrainSettings,
        training: bool = True,
        threads: Executor | None = None,
    ) -> Batch:
        """Build the batch of some units in an epoch.

        Without ``training`` nothing is augmented or altered, and units show the images that evaluation looks at.
        """
        draft = _Draft(self, settings, epoch, training=training)
        for unit in units:
            draft.add(unit)
        return draft.batch(self.pixels(draft.images, threads) if draft.images else torch.zeros(0, 1, 1, 1))

    def altered_texts(self, code: Mapping[str, Any]) -> tuple[str, ...]:
        """Tell a finding that is known by its codes only."""
        key = (*(code[slot] for slot in ("category", "certainty", "severity", "laterality")), *code["sites"])
        if key not in self._altered:
            finding = self.codebook.decode(code)
            self._altered[key] = tuple(
                training_texts(finding, self.knowledge, self.codebook.ontology, mode=self._injection)
            )
        return self._altered[key]


def _counts(columns: Columns) -> Ints:
    """Count, for each distinct statement, the findings of its category and certainty; [S]."""
    kinds = [(statement.code["category"], statement.code["certainty"]) for statement in columns.statements]
    number = {kind: at for at, kind in enumerate(dict.fromkeys(kinds))}
    kind_S = np.array([number[kind] for kind in kinds], np.int64)
    return np.bincount(kind_S[columns.statement_F], minlength=len(number))[kind_S] if len(kind_S) else kind_S


def _told_severities(columns: Columns) -> Mapping[int, frozenset[int]]:
    """Return the severities that statements tell of each category."""
    told: dict[int, set[int]] = {}
    for statement in columns.statements:
        severity = statement.code["severity"]
        told.setdefault(statement.code["category"], set()).update({severity} - {NONE})
    return {category: frozenset(found) for category, found in told.items()}


@dataclass
class _Draft:
    """A batch while it is being drawn."""

    pairs: PairSet
    settings: TrainSettings
    epoch: int
    training: bool
    images: list[int] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)
    flips: list[bool] = field(default_factory=list)
    units: list[int] = field(default_factory=list)
    views: list[int] = field(default_factory=list)
    codes: list[Mapping[str, Any]] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    told: list[int] = field(default_factory=list)
    told_texts: list[str] = field(default_factory=list)
    altered: list[tuple[Mapping[str, Any], str]] = field(default_factory=list)
    ranked: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, unit: int) -> None:
        """Draw images and texts of a unit."""
        position, statements = len(self.views), self.pairs.columns.statements_of(unit)
        images = self._drawn_images(unit)
        views = {int(self.pairs.columns.view_I[at]) for at in images}
        flipped = self._is_flipped(unit, statements, views)
        self.images += images
        self.seeds += [self._draw("augment", at) for at in images]
        self.flips += [flipped] * len(images)
        self.units += [position] * len(images)
        self.views.append(views.pop() if len(views) == 1 else _EVERY_VIEW)
        codes = [mirror_code(item.code) if flipped else item.code for item in statements]
        drawn = dict(self._drawn_texts(unit, statements, flipped=flipped))
        own = {item: len(self.texts) + at for at, item in enumerate(drawn)}
        self.told += [len(self.codes) + item for item in drawn]
        self.texts += drawn.values()
        self.codes += codes
        self.told_texts += [self._canonical(item, flipped=flipped) for item in statements]
        self.owners += [position] * len(codes)
        if self.training and drawn and self.settings.hard_negatives:
            for item, code, text in self._altered(unit, codes, drawn):
                if outranks(codes[item], code, codes):
                    self.ranked.append((position, own[item], len(self.altered)))
                self.altered.append((code, text))

    def batch(self, pixels_I1SS: Tensor) -> Batch:
        """Return what was drawn."""
        own = len(self.codes)
        codes = self.codes + [code for code, _ in self.altered]
        owners = self.owners + [len(self.views)] * len(self.altered)
        return Batch(
            pixels_I1SS,
            torch.tensor([seed % _SIGNED for seed in self.seeds], dtype=torch.int64),
            torch.tensor(self.flips, dtype=torch.bool),
            torch.tensor(self.units, dtype=torch.int64),
            torch.tensor(self.views, dtype=torch.int64),
            FindingTensors.from_rows(codes, self.pairs.codebook),
            torch.tensor(owners, dtype=torch.int64),
            self.texts + [text for _, text in self.altered],
            torch.tensor(self.told + list(range(own, len(codes))), dtype=torch.int64),
            self.told_texts + [text for _, text in self.altered],
            torch.tensor(
                [(unit, text, len(self.texts) + altered) for unit, text, altered in self.ranked], dtype=torch.int64
            ).reshape(-1, 3),
            self.training,
        )

    def _canonical(self, statement: Statement, *, flipped: bool) -> str:
        text = self.pairs.texts_of(statement)[0] if statement.text_ids else ""
        return mirror_text(text) or text if flipped else text

    def _draw(self, purpose: str, *parts: object) -> int:
        return draw(purpose, self.settings.seed, self.epoch, *parts)

    def _drawn_images(self, unit: int) -> list[int]:
        """Draw all views of a study in half of the cases, else one: a model must also know either view alone."""
        images = self.pairs.images_of(unit, self.settings.max_images)
        if not self.training or len(images) == 1:
            return images
        number = self._draw("images", unit)
        return images if number % 2 else [images[number // 2 % len(images)]]

    def _is_flipped(self, unit: int, statements: Sequence[Statement], views: set[int]) -> bool:
        augment = self.settings.augment
        if not self.training or not augment.enabled or not augment.flip or _LATERAL in views:
            return False
        share = self._draw("flip", unit) % _SHARE_STEPS / _SHARE_STEPS
        return share < augment.flip and can_mirror([item.code for item in statements], self.pairs.codebook)

    def _drawn_texts(self, unit: int, statements: Sequence[Statement], *, flipped: bool) -> Iterator[tuple[int, str]]:
        """Draw one variant for each of at most ``max_texts`` findings; mirrored ones tell of the other side."""
        tellable = [at for at, item in enumerate(statements) if item.text_ids]
        if len(tellable) > self.settings.max_texts:
            generator = np.random.default_rng(self._draw("texts", unit))
            first, last = self.pairs.columns.finding_start_N1[unit : unit + 2]
            counts = self.pairs.count_S[self.pairs.columns.statement_F[first:last]][tellable]
            weights = counts.astype(float) ** -self.settings.text_balance
            share = weights / weights.sum()
            tellable = sorted(generator.choice(tellable, self.settings.max_texts, replace=False, p=share).tolist())
        for item in tellable:
            variants: Sequence[str] = self.pairs.texts_of(statements[item])
            if flipped:
                variants = [text for text in map(mirror_text, variants) if text is not None]
            if variants:
                number = self._draw("variant", unit, item) if self.training else 0
                yield item, variants[number % len(variants)]

    def _altered(
        self, unit: int, codes: Sequence[Mapping[str, Any]], drawn: Mapping[int, str]
    ) -> Iterator[tuple[int, Mapping[str, Any], str]]:
        """Alter findings that a text was drawn for; yields which one, its new codes and their text."""
        severities = self.pairs.severities
        candidates = [
            (item, code)
            for item in drawn
            for code in alterations(codes[item], self.pairs.codebook, severities[codes[item]["category"]])
        ]
        generator = np.random.default_rng(self._draw("alter", unit))
        count = min(self.settings.hard_negatives, len(candidates))
        if not count:
            return
        # Of the other side, another severity and the opposite, each as often: denials have an opposite alone, and
        # most findings are denials.
        changed = [changed_slot(codes[item], code) for item, code in candidates]
        weights = np.array([1 / changed.count(slot) for slot in changed])
        for at in generator.choice(len(candidates), count, replace=False, p=weights / weights.sum()):
            item, code = candidates[at]
            # Words that codes do not hold (a pattern, a size) stay as they are where only the side changes.
            mirrored = mirror_text(drawn[item]) if changed[at] == "laterality" else None
            texts = (mirrored,) if mirrored else self.pairs.altered_texts(code)
            yield item, code, texts[int(generator.integers(len(texts)))]


@dataclass(frozen=True)
class TrainData:
    """All that `medfilip.training.loop.fit` needs to know about the data."""

    train: PairSet
    validation: PairSet
    ontology: Ontology
    knowledge: Knowledge
    synthetic: bool
    injection: InjectionMode = "conditioned"


def unseen_categories(settings: TrainSettings, ontology: Ontology) -> frozenset[str]:
    """Return the categories that are left out of training: those of the setting and all below them.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` if one is no category of the ontology.
    """
    ontology.check_categories(settings.unseen, "unseen")
    return frozenset(settings.unseen).union(*(ontology.descendants(name) for name in settings.unseen))


def vocabulary_texts(data: TrainData) -> list[str]:
    """Return the texts a tokenizer is trained on: those of the corpus, and what can be asked of any category."""
    known = [
        text
        for category in data.ontology.categories.values()
        for certainty in CERTAINTIES
        for text in (
            *training_texts(
                {"category": category.id, "certainty": certainty}, data.knowledge, data.ontology, mode=data.injection
            ),
            *wordings({"category": category.id, "certainty": certainty}, data.ontology),
            *category.terms,
        )
    ]
    return [*data.train.all_texts(), *known]
