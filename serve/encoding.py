"""What an encoder computes, as a plain class: Ray only places it (``serve.app``)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medfilip._version import __version__
from medfilip.answers import LICENSED, SYNTHETIC, LabelFacts, ModelCard
from medfilip.core.errors import ErrorCode
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.model.checkpoint import load_checkpoint
from medfilip.model.diagnoser import Diagnoser, LabelBank
from serve.messages import FloatArray, Refused, Scored, refusing

_CACHED_BANKS = 64


class EncoderService:
    """Model input → scores. Holds one checkpoint and the embeddings of the label sets that were asked for last.

    Call it from one thread at a time.
    """

    def __init__(self, checkpoint: Path, *, device: str = "cpu") -> None:
        loaded = load_checkpoint(checkpoint)
        self._diagnoser = Diagnoser(
            loaded.model.to(device),
            versions=loaded.versions,
            model_fingerprint=loaded.fingerprint,
            calibration=loaded.calibration,
        )
        self._metrics = {
            name: float(value)
            for name, value in loaded.metrics.items()
            if isinstance(value, int | float) and np.isfinite(value)
        }
        self._banks: OrderedDict[tuple[str, ...], LabelBank] = OrderedDict()
        self._default = self._default_labels()

    def embed(self, images: Sequence[FloatArray]) -> list[FloatArray | Refused]:
        """Embed a batch of images, each float32 [1, S, S]; one of another shape is refused alone."""
        shape = (1, self._diagnoser.image_size, self._diagnoser.image_size)
        wrong = Refused(ErrorCode.INTERNAL, "The decoder and the encoder serve different models.", "Deploy them again.")
        answers: list[FloatArray | Refused] = [wrong] * len(images)
        fitting = [at for at, image in enumerate(images) if image.shape == shape]
        if fitting:
            embedded = refusing(lambda: self._diagnoser.encode_images(np.stack([images[at] for at in fitting])))
            for row, at in enumerate(fitting):
                answers[at] = embedded if isinstance(embedded, Refused) else embedded[row]
        return answers

    def score(self, embedding: FloatArray, labels: tuple[str, ...] | None) -> Scored | Refused:
        """Score one embedded image [D] against labels; ``None`` stands for the default ones."""
        return refusing(lambda: self._score(embedding, labels or self._default))

    def card(self) -> ModelCard:
        """Return what is known about the model."""
        diagnoser = self._diagnoser
        config, versions = diagnoser.model.config, diagnoser.versions
        return ModelCard(
            fingerprint=diagnoser.fingerprint,
            code_version=__version__,
            trained_with=versions.medfilip,
            training_data=SYNTHETIC if versions.synthetic else LICENSED,
            vision=config.vision or config.preset,
            text=config.text or config.preset,
            image_size=config.image_size,
            embed_dim=config.embed_dim,
            ontology=versions.ontology,
            knowledge=versions.knowledge,
            knowledge_changed=diagnoser.knowledge_changed,
            calibrated_categories=tuple(sorted(diagnoser.calibration.categories)),
            metrics=self._metrics,
        )

    def labels(self) -> tuple[LabelFacts, ...]:
        """Return every category of the ontology and whether it is a default label."""
        knowledge, calibrated = load_knowledge(), self._diagnoser.calibration.categories
        return tuple(
            LabelFacts(
                id=category.id,
                label=category.label,
                group=category.group,
                default=category.id in self._default,
                calibrated=category.id in calibrated,
                has_knowledge=knowledge.entry(category.id) is not None,
            )
            for category in load_ontology().categories.values()
        )

    def _default_labels(self) -> tuple[str, ...]:
        """Categories that validation reports spoke about; for a model without calibration, those with knowledge."""
        known = self._diagnoser.calibration.categories or load_knowledge().entries
        return tuple(name for name in load_ontology().categories if name in known)

    def _score(self, embedding: FloatArray, labels: tuple[str, ...]) -> Scored:
        bank = self._bank(labels)
        scores = self._diagnoser.score(embedding[None], bank)
        return Scored(self._diagnoser.findings(scores, bank)[0], bank.fingerprint)

    def _bank(self, labels: tuple[str, ...]) -> LabelBank:
        if labels not in self._banks:
            self._banks[labels] = self._diagnoser.encode_labels(labels)
            if len(self._banks) > _CACHED_BANKS:
                self._banks.popitem(last=False)
        self._banks.move_to_end(labels)
        return self._banks[labels]
