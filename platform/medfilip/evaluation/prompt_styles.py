"""The same question in other words: how much a zero-shot model's numbers depend on the wording of its prompts.

A model that was tuned on one wording looks better than it is to whoever asks in another. Each style asks for the same
categories; the spread of a macro metric over the styles is a metric itself. Some styles are held out: ``caption`` and
``seen`` put words that the text tower was shown into sentences that it was not, ``free`` denies in words it never met,
and ``synonyms`` are names that no training text has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from medfilip.evaluation.metrics import Interval, Ints
from medfilip.evaluation.zero_shot import evaluate_zero_shot
from medfilip.findings.finding import Certainty
from medfilip.findings.ontology import Ontology
from medfilip.knowledge.inject import InjectionMode, canonical_texts
from medfilip.knowledge.knowledge import Knowledge
from medfilip.knowledge.prompts import Prompts, prompts
from medfilip.knowledge.wordings import is_shown
from medfilip.model.diagnoser import Diagnoser, FloatArray

CANONICAL, ENSEMBLE, ATTRIBUTES, SYNONYMS = "canonical", "ensemble", "attributes", "synonyms"
_NAMES = 4

_TEMPLATES: dict[str, tuple[str, str]] = {
    "name": ("{}", "no {}"),
    "sentence": ("there is {}.", "there is no {}."),
    "caption": ("a chest radiograph showing {}", "a chest radiograph without {}"),
    "impression": ("findings consistent with {}", "no evidence of {}"),
    "certain": ("{} is present", "{} is absent"),
    "seen": ("{} is seen on the frontal view", "{} is not seen on the frontal view"),
    "free": ("the lungs show {}", "the lungs are free of {}"),
}
_HELD_OUT = frozenset({SYNONYMS, *(name for name, pair in _TEMPLATES.items() if not all(map(is_shown, pair)))})


class StyleResult(BaseModel):
    """Macro AUROC of one wording.

    Attributes
    ----------
    held_out
        Whether neither training nor its warm-up shows texts worded like these.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    style: str
    held_out: bool = False
    example: tuple[str, str]
    pos_auroc: Interval | None
    pnc_auroc: Interval | None


class RobustnessResult(BaseModel):
    """All wordings, and what changes between them: the largest less the smallest macro AUROC, ensemble apart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    styles: tuple[StyleResult, ...]
    pos_spread: float | None
    pnc_spread: float | None


def write_styles(
    category: str, knowledge: Knowledge, ontology: Ontology, mode: InjectionMode = "conditioned"
) -> dict[str, Prompts]:
    """Write the prompts of a category in every style.

    Returns
    -------
    dict
        Style → prompts: ``canonical`` (those of diagnosis), one style a sentence frame, ``synonyms`` (other names of
        the category), ``attributes`` (what it looks like, its name left out) and ``ensemble`` (all but the canonical
        ones together). A category without synonyms or without knowledge lacks that style's own texts and gets its
        name instead.
    """
    name = ontology.label(category)
    written = {CANONICAL: prompts(category, knowledge, ontology, mode=mode)}
    for style, (positive, negative) in _TEMPLATES.items():
        written[style] = Prompts((positive.format(name),), (negative.format(name),))
    others = ontology.categories[category].terms[1 : 1 + _NAMES] or (name,)
    written[SYNONYMS] = Prompts(tuple(others), tuple(f"no {other}" for other in others))
    written[ATTRIBUTES] = described(category, knowledge, ontology)
    parts = [item for style, item in written.items() if style != CANONICAL]
    written[ENSEMBLE] = Prompts(
        tuple(dict.fromkeys(text for item in parts for text in item.positive)),
        tuple(dict.fromkeys(text for item in parts for text in item.negative)),
    )
    return written


def described(category: str, knowledge: Knowledge, ontology: Ontology) -> Prompts:
    """Write prompts that describe a category without naming it, as one asks for a disease that was never seen."""

    def without_name(certainty: Certainty) -> list[str]:
        finding = {"category": category, "certainty": certainty}
        texts = canonical_texts(finding, knowledge, ontology, mode="conditioned")
        return [rest for text in texts if (rest := text.partition(". ")[2].strip())]

    name = ontology.label(category)
    positive = without_name(Certainty.PRESENT) or [name]
    negative = without_name(Certainty.ABSENT) or [f"no {positive[0]}"]
    return Prompts(tuple(positive), tuple(negative))


def evaluate_robustness(
    diagnoser: Diagnoser,
    image_ND: FloatArray,
    truth_NL: Ints,
    patients: Sequence[str],
    *,
    labels: Sequence[str],
    write: Callable[[str], Mapping[str, Prompts]],
    resamples: int = 1000,
    seed: int = 0,
) -> RobustnessResult:
    """Evaluate the same images, labels and resamples in every style that ``write`` gives."""
    written = [write(label) for label in labels]
    found = []
    for style in written[0]:
        bank = diagnoser.encode_prompts(labels, [item[style] for item in written])
        result = evaluate_zero_shot(
            diagnoser.score(image_ND, bank),
            truth_NL,
            patients,
            resamples=resamples,
            seed=seed,
            only=("pos_auroc", "pnc_auroc"),
        )
        example = written[0][style]
        found.append(
            StyleResult(
                style=style,
                held_out=style in _HELD_OUT,
                example=(example.positive[0], example.negative[0]),
                pos_auroc=result.macro.get("pos_auroc"),
                pnc_auroc=result.macro.get("pnc_auroc"),
            )
        )
    single = [item for item in found if item.style != ENSEMBLE]
    return RobustnessResult(
        styles=tuple(found),
        pos_spread=_spread([item.pos_auroc for item in single]),
        pnc_spread=_spread([item.pnc_auroc for item in single]),
    )


def _spread(found: Sequence[Interval | None]) -> float | None:
    values = [item.value for item in found if item is not None]
    return float(np.ptp(values)) if values else None
