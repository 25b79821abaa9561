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
from medfilip.model.answering import UNFAMILIAR, Answering
from medfilip.model.diagnoser import Diagnoser, LabelBank
from medfilip.model.question import Described, Question
from serve.messages import Decoded, Embedded, FloatArray, Refused, Told, refusing
from serve.metrics import DriftMonitor, EndpointMetrics

_CACHED_BANKS = 64


class EncoderService:
    """Model input → answers. Holds one checkpoint and the embeddings of the label sets that were asked for last.

    Call it from one thread at a time.
    """

    def __init__(
        self,
        checkpoint: Path,
        *,
        device: str = "cpu",
        unfamiliar_from: float = UNFAMILIAR,
        metrics: EndpointMetrics | None = None,
    ) -> None:
        self._diagnoser = Diagnoser.load(checkpoint, device)
        self._metrics = metrics or EndpointMetrics()
        points = self._diagnoser.calibration.operating_points
        self._drift = DriftMonitor(
            {name: point.positives / (point.positives + point.negatives) for name, point in points.items()}
        )
        self._answering = Answering(self._diagnoser, unfamiliar_from=unfamiliar_from)
        self._card = self._make_card()
        self._banks: OrderedDict[tuple[tuple[str, ...], tuple[Described, ...]], LabelBank] = OrderedDict()

    def embed(self, images: Sequence[FloatArray]) -> list[FloatArray | Refused]:
        """Run the image tower on a batch, each float32 [1, S, S]; one of another shape is refused alone."""
        size = self._diagnoser.image_size
        # The model was replaced by one of another size while this image was on its way: it has to be decoded again.
        wrong = Refused(ErrorCode.MODEL_CHANGED, "The model was replaced meanwhile.", "Send the request again.")
        answers: list[FloatArray | Refused] = [wrong] * len(images)
        fitting = [at for at, image in enumerate(images) if image.shape == (1, size, size)]
        if fitting:
            embedded = refusing(lambda: self._diagnoser.image_features(np.stack([images[at] for at in fitting])))
            for row, at in enumerate(fitting):
                answers[at] = embedded if isinstance(embedded, Refused) else embedded[row]
        return answers

    def answer(self, question: Question, views: Sequence[FloatArray], images: Sequence[Decoded]) -> Told | Refused:
        """Answer a question about one study, whose images were embedded by `embed` to ``views``, each [D]."""
        return refusing(lambda: self._answer(question, views, images))

    def embed_all(self, views: Sequence[FloatArray], texts: Sequence[str]) -> Embedded | Refused:
        """Pool the views of a study, each [D] of `embed`, and embed texts as they are."""
        return refusing(
            lambda: Embedded(
                self._diagnoser.fingerprint,
                self._diagnoser.join(np.stack(views), np.zeros(len(views), np.int64))[0] if len(views) else None,
                self._diagnoser.encode_texts(texts),
            )
        )

    def _answer(self, question: Question, views: Sequence[FloatArray], images: Sequence[Decoded]) -> Told:
        seconds: dict[str, float] = {}
        facts, pixels_I1SS = [image.facts for image in images], np.stack([image.pixels for image in images])
        with self._metrics.stage("labels", seconds):
            bank = self._bank(question)
        with self._metrics.stage("answer", seconds):
            answered = self._answering.answer(question, bank, np.stack(views), facts, pixels_I1SS)
        self._metrics.findings(answered.findings, answered.abstentions)
        self._metrics.drift(self._drift.take(answered.findings, answered.unfamiliarity))
        return Told(answered, self.card(), seconds)

    def card(self) -> ModelCard:
        """Return what is known about the model."""
        return self._card

    def _make_card(self) -> ModelCard:
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
            metrics=diagnoser.metrics,
        )

    def labels(self) -> tuple[LabelFacts, ...]:
        """Return every category of the ontology and whether it is a default label."""
        knowledge, calibrated = load_knowledge(), self._diagnoser.calibration.categories
        defaults = self._answering.default_labels
        return tuple(
            LabelFacts(
                id=category.id,
                label=category.label,
                group=category.group,
                default=category.id in defaults,
                calibrated=category.id in calibrated,
                has_knowledge=knowledge.entry(category.id) is not None,
            )
            for category in load_ontology().categories.values()
        )

    def _bank(self, question: Question) -> LabelBank:
        key = (question.labels, question.described)
        self._metrics.label_set(cached=key in self._banks)
        if key not in self._banks:
            self._banks[key] = self._answering.bank(question)
            if len(self._banks) > _CACHED_BANKS:
                self._banks.popitem(last=False)
        self._banks.move_to_end(key)
        return self._banks[key]
