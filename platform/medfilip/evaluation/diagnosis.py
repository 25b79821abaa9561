"""Everything that is measured of a model on one corpus, from embedded images and the truth about their studies.

Nothing here trains, and nothing changes the model: thresholds come from the validation split or the checkpoint,
numbers from the test split.

Legend of tensor names: N images, L labels, D joint dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from pydantic import BaseModel, ConfigDict

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.embedded import EmbeddedImages, Options, Unit
from medfilip.evaluation.familiarity import FamiliarityResult
from medfilip.evaluation.fine_grained import SlotResult, evaluate_fine_grained
from medfilip.evaluation.grounding import GroundingResult
from medfilip.evaluation.metrics import Ints
from medfilip.evaluation.prompt_styles import ATTRIBUTES, RobustnessResult, evaluate_robustness, write_styles
from medfilip.evaluation.retrieval import RetrievalResult, Statements, evaluate_retrieval
from medfilip.evaluation.single_label import SingleLabelResult, evaluate_single_label
from medfilip.evaluation.subgroups import SubgroupResult, age_band, evaluate_subgroups
from medfilip.evaluation.truth import Truth
from medfilip.evaluation.zero_shot import ZeroShotResult, choose_thresholds, evaluate_zero_shot
from medfilip.findings.codes import Codebook
from medfilip.findings.truth import ABSENT, PRESENT
from medfilip.knowledge.inject import canonical_texts
from medfilip.knowledge.knowledge import Knowledge
from medfilip.knowledge.prompts import Prompts
from medfilip.model.diagnoser import Diagnoser


class DiagnosisResult(BaseModel):
    """All parts; what was not asked for or cannot be measured is empty.

    Attributes
    ----------
    unit
        What counts once: what is called images in all parts are studies where it is a study.
    single_label
        The choice of one label, over the test images that have exactly one of them.
    unseen, unseen_described
        Categories that were kept out of training, asked for by name and attributes, and by attributes alone.
    not_measured
        Part that was asked for → why there is nothing of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    unit: Unit = "image"
    zero_shot: ZeroShotResult
    single_label: SingleLabelResult | None = None
    unseen: ZeroShotResult | None = None
    unseen_described: ZeroShotResult | None = None
    robustness: RobustnessResult | None = None
    fine_grained: tuple[SlotResult, ...] = ()
    retrieval: tuple[RetrievalResult, ...] = ()
    subgroups: tuple[SubgroupResult, ...] = ()
    familiarity: FamiliarityResult | None = None
    grounding: GroundingResult | None = None
    not_measured: dict[str, str] = {}


_EMPTY = {
    "fine_grained": "too few findings with a known side, severity or site",
    "retrieval": "too few studies state anything",
    "subgroups": "nothing tells two groups apart that have enough images each",
}
"""Why a part can come out empty."""
_FIELDS = {"prompts": "robustness"}
"""Where a part has another name in the result."""


def evaluate_diagnosis(
    diagnoser: Diagnoser, images: EmbeddedImages, truth: Truth, knowledge: Knowledge, options: Options
) -> DiagnosisResult:
    """Evaluate a model on the images of the splits ``validation`` and ``test``.

    Raises
    ------
    MedfilipError
        ``NOT_ENOUGH_DATA`` if no category has enough test images; ``CONFIG_INVALID`` for a label that is no category.
    """
    test = images.of_split("test")
    labels = _labels(test, truth, options)
    unseen = tuple(label for label in labels if label in diagnoser.versions.unseen)
    seen = tuple(label for label in labels if label not in unseen)
    run = _Run(diagnoser, images, test, truth, knowledge, options)
    main = seen or unseen
    found: dict[str, object] = {"unit": images.unit, "zero_shot": run.zero_shot(main)}
    if options.exclusive:
        found["single_label"] = run.single_label(labels)
    if unseen and seen:
        found["unseen"] = run.zero_shot(unseen)
        found["unseen_described"] = run.described(unseen)
    measured: dict[str, Callable[[], object]] = {
        "prompts": lambda: run.robustness(main),
        "fine_grained": lambda: run.fine_grained(labels),
        "retrieval": run.retrieval,
        "subgroups": lambda: run.subgroups(main),
    }
    missing = {part: why for part, why in truth.lacks.items() if part in options.parts}
    for part in options.parts:
        if part in measured and part not in missing:
            found[_FIELDS.get(part, part)] = result = measured[part]()
            if result == ():
                missing[part] = _EMPTY[part]
    found["not_measured"] = missing
    return DiagnosisResult.model_validate(found)


@dataclass(frozen=True)
class _Run:
    diagnoser: Diagnoser
    images: EmbeddedImages
    test: EmbeddedImages
    truth: Truth
    knowledge: Knowledge
    options: Options

    def zero_shot(self, labels: Sequence[str]) -> ZeroShotResult:
        bank = self.diagnoser.encode_labels(labels)
        stored, chosen = self._thresholds(labels)
        found = evaluate_zero_shot(
            self.diagnoser.score(self.test.image_ND, bank),
            self._states(self.test, labels),
            self.test.column("patient_id"),
            thresholds=stored | chosen,
            resamples=self.options.resamples,
            seed=self.options.seed,
        )
        sources = dict.fromkeys(chosen, "validation") | dict.fromkeys(stored, "checkpoint")
        told = [item.model_copy(update={"threshold_from": sources.get(item.label, "default")}) for item in found.labels]
        return found.model_copy(update={"labels": tuple(told)})

    def single_label(self, labels: Sequence[str]) -> SingleLabelResult:
        truth_NL = self._states(self.test, labels)
        rows = np.flatnonzero((truth_NL == PRESENT).sum(axis=1) == 1)
        if not len(rows):
            raise MedfilipError(
                ErrorCode.NOT_ENOUGH_DATA,
                "No test image has exactly one of the labels, so that none can be chosen.",
                fix="Give labels that exclude each other, or leave exclusive=false.",
            )
        scores = self.diagnoser.score(self.test.image_ND[rows], self.diagnoser.encode_labels(labels))
        patients = self.test.column("patient_id")
        return evaluate_single_label(
            scores, truth_NL[rows].argmax(axis=1), [patients[row] for row in rows],
            resamples=self.options.resamples, seed=self.options.seed,
        )  # fmt: skip

    def described(self, labels: Sequence[str]) -> ZeroShotResult:
        bank = self.diagnoser.encode_prompts(labels, [self._styles(label)[ATTRIBUTES] for label in labels])
        return evaluate_zero_shot(
            self.diagnoser.score(self.test.image_ND, bank),
            self._states(self.test, labels),
            self.test.column("patient_id"),
            resamples=self.options.resamples,
            seed=self.options.seed,
        )

    def robustness(self, labels: Sequence[str]) -> RobustnessResult:
        return evaluate_robustness(
            self.diagnoser,
            self.test.image_ND,
            self._states(self.test, labels),
            self.test.column("patient_id"),
            labels=labels,
            write=self._styles,
            resamples=self.options.resamples,
            seed=self.options.seed,
        )

    def fine_grained(self, labels: Sequence[str]) -> tuple[SlotResult, ...]:
        details = []
        for study, view in zip(self.test.column("study_id"), self.test.column("view"), strict=True):
            shown = self.truth.details(study)
            details.append(
                {name: item for name, item in shown.items() if self.truth.state(study, name, view) == PRESENT}
            )
        return evaluate_fine_grained(
            self.diagnoser, self.test.image_ND, details, self.test.column("patient_id"),
            labels=labels, resamples=self.options.resamples, seed=self.options.seed,
        )  # fmt: skip

    def retrieval(self) -> tuple[RetrievalResult, ...]:
        ontology = self.truth.ontology
        codebook = Codebook.of(ontology)
        text = partial(_text_of, codebook=codebook, knowledge=self.knowledge, diagnoser=self.diagnoser)
        stated = [self.truth.codes(study, codebook) for study in self.test.column("study_id")]
        return evaluate_retrieval(
            self.test.image_ND, Statements(stated, codebook, text), self.diagnoser.encode_texts,
            self.test.column("patient_id"), resamples=self.options.resamples, seed=self.options.seed,
        )  # fmt: skip

    def subgroups(self, labels: Sequence[str]) -> tuple[SubgroupResult, ...]:
        facts = self.test.facts
        columns: dict[str, Sequence[str | None]] = {
            name: facts[name].to_pylist() for name in ("sex", "view", "view_position", "source")
        }
        columns["age"] = [age_band(years) for years in facts["age_years"].to_pylist()]
        bank = self.diagnoser.encode_labels(labels)
        return evaluate_subgroups(
            self.diagnoser.score(self.test.image_ND, bank), self._states(self.test, labels),
            self.test.column("patient_id"), columns,
            min_images=max(5, self.options.min_images), resamples=self.options.resamples, seed=self.options.seed,
        )  # fmt: skip

    def _states(self, images: EmbeddedImages, labels: Sequence[str]) -> Ints:
        return self.truth.states(images.column("study_id"), images.column("view"), labels)

    def _styles(self, label: str) -> Mapping[str, Prompts]:
        return write_styles(label, self.knowledge, self.truth.ontology, self.diagnoser.versions.injection)

    def _thresholds(self, labels: Sequence[str]) -> tuple[dict[str, float], dict[str, float]]:
        """Return the checkpoint's operating points, and for other labels what is best on the validation split."""
        points = self.diagnoser.calibration.operating_points
        stored = {label: points[label].threshold for label in labels if label in points}
        labels = [label for label in labels if label not in stored]
        validation = self.images.of_split("validation")
        if not len(validation) or not labels:
            return stored, {}
        scores = self.diagnoser.score(validation.image_ND, self.diagnoser.encode_labels(labels))
        return stored, choose_thresholds(scores, self._states(validation, labels))


def _labels(test: EmbeddedImages, truth: Truth, options: Options) -> tuple[str, ...]:
    truth.ontology.check_categories(options.labels, "labels")
    if options.labels:
        return options.labels
    candidates = truth.categories
    truth_NL = truth.states(test.column("study_id"), test.column("view"), candidates)
    fewest_L = np.minimum((truth_NL == PRESENT).sum(axis=0), (truth_NL == ABSENT).sum(axis=0))
    chosen = tuple(label for label, count in zip(candidates, fewest_L, strict=True) if count >= options.min_images)
    if not chosen:
        raise MedfilipError(
            ErrorCode.NOT_ENOUGH_DATA,
            f"No category has {options.min_images} test images with it and {options.min_images} without.",
            fix="Evaluate more studies, or lower min_images.",
        )
    return chosen


def _text_of(code: Mapping[str, object], *, codebook: Codebook, knowledge: Knowledge, diagnoser: Diagnoser) -> str:
    return canonical_texts(codebook.decode(code), knowledge, codebook.ontology, mode=diagnoser.versions.injection)[0]
