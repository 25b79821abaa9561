"""The card of a model, written from what was measured: data, numbers, subgroups, calibration, limits, intended use.

After Mitchell et al. (2019). Nothing in it is claimed: what was not measured is said not to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from medfilip.answers import INTENDED_USE
from medfilip.evaluation.diagnosis import DiagnosisResult
from medfilip.evaluation.provenance import RunFacts
from medfilip.evaluation.report import show
from medfilip.evaluation.zero_shot import Metric
from medfilip.model.checkpoint import Versions

CARD = "model_card.md"
_WEAK = 0.7
_UNITS = {"image": "images", "study": "studies"}
_SHOWN: tuple[Metric, ...] = ("pos_auroc", "pnc_auroc", "sensitivity", "specificity", "ece")


def write_card(
    model: str, versions: Versions, diagnosis: DiagnosisResult, runs: Sequence[RunFacts], *, truth: str
) -> str:
    """Write the card as Markdown.

    Parameters
    ----------
    model
        Fingerprint.
    runs
        The runs that the data and the model came from.
    truth
        What was taken to be true, in words.
    """
    return "\n".join(_lines(model, versions, diagnosis, runs, truth)) + "\n"


def _lines(
    model: str, versions: Versions, diagnosis: DiagnosisResult, runs: Sequence[RunFacts], truth: str
) -> Iterator[str]:
    zero_shot = diagnosis.zero_shot
    yield f"# Model card: zero-shot chest X-ray model {model}\n"
    yield f"**Intended use.** {INTENDED_USE.capitalize()}: not a medical device, not for decisions about patients.\n"
    if versions.synthetic:
        yield "**Trained on synthetic data.** It shows that the platform works and is worthless for patients.\n"
    yield "## Data\n"
    yield "| run | counted | refused |\n|---|---|---|"
    for run in runs:
        yield f"| {run.job} {run.run_id} ({run.fingerprint[:16]}) | {_counts(run.counts)} | {_counts(run.rejected)} |"
    yield f"\nOntology {versions.ontology}, knowledge {versions.knowledge}, attributes {versions.injection}."
    if versions.unseen:
        yield f"Kept out of training: {', '.join(versions.unseen)}."
    yield f"\n## Measured\n\nTruth: {truth}. "
    yield f"{zero_shot.images} test {_UNITS[diagnosis.unit]} of {zero_shot.patients} patients; "
    yield f"95 % intervals over {zero_shot.resamples} resamples of patients.\n"
    yield "| label | with | without | AUROC POS | AUROC PNC | sensitivity | specificity | ECE |"
    yield "|---|---|---|---|---|---|---|---|"
    for item in zero_shot.labels:
        cells = " | ".join(show(item.metrics.get(name)) for name in _SHOWN)
        yield f"| {item.label} | {item.positives} | {item.negatives} | {cells} |"
    yield f"| mean | | | {' | '.join(show(zero_shot.macro.get(name)) for name in _SHOWN)} |"
    yield from _subgroups(diagnosis)
    yield from _calibration(diagnosis)
    yield from _limits(diagnosis, versions)


def _subgroups(diagnosis: DiagnosisResult) -> Iterator[str]:
    yield "\n## Subgroups\n"
    if not diagnosis.subgroups:
        yield "Not measured: the corpus does not say sex, age, view or source, or has too few images of any group."
        return
    yield "| | group | images | AUROC PNC | largest gap |\n|---|---|---|---|---|"
    for column in diagnosis.subgroups:
        for at, group in enumerate(column.groups):
            gap = show(column.gap) if at == 0 else ""
            yield f"| {column.column} | {group.group} | {group.images} | {show(group.pnc_auroc)} | {gap} |"


def _calibration(diagnosis: DiagnosisResult) -> Iterator[str]:
    labels = [item for item in diagnosis.zero_shot.labels if not item.skipped]
    own = [item.label for item in labels if item.basis == "category"]
    others = [item.label for item in labels if item.basis != "category"]
    yield "\n## Calibration\n"
    yield f"Probabilities are calibrated for {', '.join(own) if own else 'no label'}."
    if others:
        yield f"Not calibrated by themselves: {', '.join(others)}."
    if diagnosis.familiarity is not None:
        found = diagnosis.familiarity
        yield f"{found.strangers} images of something else are told from test images with AUROC {found.auroc}."
    else:
        yield "Whether it notices images of something else was not measured."


def _limits(diagnosis: DiagnosisResult, versions: Versions) -> Iterator[str]:
    zero_shot = diagnosis.zero_shot
    yield "\n## Limits\n"
    weak = [
        item.label
        for item in zero_shot.labels
        if (area := item.metrics.get("pnc_auroc")) is not None
        and (area.low if area.low is not None else area.value) < _WEAK
    ]
    if weak:
        yield f"- Not reliably told (the interval of the PNC AUROC reaches below {_WEAK}): {', '.join(weak)}."
    if zero_shot.skipped:
        yield f"- Not measured, for want of images with or without them: {', '.join(zero_shot.skipped)}."
    for part, reason in diagnosis.not_measured.items():
        yield f"- Not measured: {part.replace('_', ' ')}, since {reason}."
    robustness = diagnosis.robustness
    if robustness is not None and robustness.pnc_spread is not None:
        worst = min(robustness.styles, key=lambda item: item.pnc_auroc.value if item.pnc_auroc else 1.0)
        yield (
            f"- Wording matters: over prompt styles the mean PNC AUROC changes by {robustness.pnc_spread:.3f}; it is "
            f"{show(worst.pnc_auroc)} with “{worst.example[0][:60]}” against “{worst.example[1][:60]}”."
        )
    if diagnosis.unseen is not None:
        yield f"- Categories kept out of training: mean AUROC POS {show(diagnosis.unseen.macro.get('pos_auroc'))}."
    chance = [item for item in diagnosis.fine_grained if item.category and (item.accuracy.low or 0) <= item.majority]
    if chance:
        told = ", ".join(f"{item.slot} of {item.category}" for item in chance)
        yield f"- No better than always saying the commonest: {told}."
    yield "- Measured on one corpus; other hospitals, devices and populations were not looked at."
    if versions.synthetic:
        yield "- Nothing here says anything about real radiographs."


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in counts.items() if count) or "nothing"
