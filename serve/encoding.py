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
from serve.messages import Answered, Decoded, Embedded, FloatArray, Refused, refusing

_CACHED_BANKS = 64


class EncoderService:
    """Model input → answers. Holds one checkpoint and the embeddings of the label sets that were asked for last.

    Call it from one thread at a time.
    """

    def __init__(self, checkpoint: Path, *, device: str = "cpu", unfamiliar_from: float = UNFAMILIAR) -> None:
        self._diagnoser = Diagnoser.load(checkpoint, device)
        self._answering = Answering(self._diagnoser, unfamiliar_from=unfamiliar_from)
        self._banks: OrderedDict[tuple[tuple[str, ...], tuple[Described, ...]], LabelBank] = OrderedDict()

    def embed(self, images: Sequence[FloatArray]) -> list[FloatArray | Refused]:
        """Run the image tower on a batch, each float32 [1, S, S]; one of another shape is refused alone."""
        shape = (1, self._diagnoser.image_size, self._diagnoser.image_size)
        wrong = Refused(ErrorCode.INTERNAL, "The decoder and the encoder serve different models.", "Deploy them again.")
        answers: list[FloatArray | Refused] = [wrong] * len(images)
        fitting = [at for at, image in enumerate(images) if image.shape == shape]
        if fitting:
            embedded = refusing(lambda: self._diagnoser.encode_views(np.stack([images[at] for at in fitting])))
            for row, at in enumerate(fitting):
                answers[at] = embedded if isinstance(embedded, Refused) else embedded[row]
        return answers

    def answer(self, question: Question, views: Sequence[FloatArray], images: Sequence[Decoded]) -> Answered | Refused:
        """Answer a question about one study, whose images were embedded by `embed` to ``views``, each [D]."""
        facts, pixels_I1SS = [image.facts for image in images], np.stack([image.pixels for image in images])
        return refusing(
            lambda: self._answering.answer(question, self._bank(question), np.stack(views), facts, pixels_I1SS)
        )

    def embed_all(self, views: Sequence[FloatArray], texts: Sequence[str]) -> Embedded | Refused:
        """Pool the views of a study, each [D] of `embed`, and embed texts as they are."""
        return refusing(
            lambda: Embedded(
                self._diagnoser.join_views(np.stack(views))[0] if len(views) else None,
                self._diagnoser.encode_texts(texts),
            )
        )

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
        if key not in self._banks:
            self._banks[key] = self._answering.bank(question)
            if len(self._banks) > _CACHED_BANKS:
                self._banks.popitem(last=False)
        self._banks.move_to_end(key)
        return self._banks[key]
