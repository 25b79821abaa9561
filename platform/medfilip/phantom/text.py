"""Synthetic reports: a small grammar of how radiologists write, with the exact truth of every statement.

What counts as truth, and is deliberately narrow:

- Only FINDINGS and IMPRESSION state findings. What INDICATION, TECHNIQUE and COMPARISON name is a question or history.
- A negated finding is absent; "heart size is normal" denies cardiomegaly, "the lungs are clear" denies lung opacity
  (inferred) and says nothing about nodules by name. Other sentences of normality state no finding.
- "Probable" states a finding (present, hedged), "possible", "may represent" and "cannot be excluded" leave it open.
- A slot is filled only by words of the same statement: the impression repeats a finding as it is written there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from medfilip.findings.finding import Alignment, Certainty, Finding, Hedge, Laterality
from medfilip.phantom.lesions import CATEGORIES, Lesion
from medfilip.phantom.writer import ReportWriter, Slot

_T = TypeVar("_T")

_NOUNS = {
    "pleural_effusion": ("pleural effusion", "effusion"),
    "consolidation": ("consolidation",),
    "nodule": ("nodule", "nodular opacity"),
    "cardiomegaly": ("cardiomegaly", "cardiac enlargement"),
    "pneumothorax": ("pneumothorax",),
}
_PLURALS = {"pleural_effusion": ("pleural effusions", "effusions"), "consolidation": ("consolidations",)}
_UNCOUNTED = frozenset({"consolidation", "cardiomegaly"})
_DEGREES: dict[str, dict[str, tuple[Slot, ...]]] = {
    "pleural_effusion": {
        "minimal": (Slot("severity", "minimal", "minimal"), Slot("size", "trace", "tiny")),
        "mild": (Slot("size", "small", "small"), Slot("severity", "mild", "mild")),
        "moderate": (Slot("severity", "moderate", "moderate"), Slot("size", "moderate-sized", "medium")),
        "severe": (Slot("size", "large", "large"), Slot("severity", "massive", "severe")),
    },
    "consolidation": {
        "mild": (Slot("severity", "mild", "mild"),),
        "moderate": (Slot("severity", "moderate", "moderate"),),
        "severe": (Slot("severity", "severe", "severe"), Slot("severity", "extensive", "severe")),
    },
    "cardiomegaly": {
        "mild": (Slot("severity", "mild", "mild"),),
        "moderate": (Slot("severity", "moderate", "moderate"),),
        "severe": (Slot("severity", "severe", "severe"), Slot("severity", "marked", "severe")),
    },
    "pneumothorax": {
        "mild": (Slot("size", "small", "small"),),
        "moderate": (Slot("severity", "moderate", "moderate"),),
        "severe": (Slot("size", "large", "large"),),
    },
}
_SITES: dict[str, tuple[Slot, ...]] = {
    "upper_lobe": (Slot("site", "upper lobe", "upper_lobe"), Slot("site", "upper lung zone", "upper_lung")),
    "middle_lobe": (Slot("site", "middle lobe", "middle_lobe"),),
    "lower_lobe": (Slot("site", "lower lobe", "lower_lobe"), Slot("site", "lung base", "lung_base")),
    "lung_apex": (Slot("site", "apical", "lung_apex"),),
}
_CHANGES = (
    Slot("change", "unchanged", "unchanged"),
    Slot("change", "stable", "unchanged"),
    Slot("change", "increased", "increased"),
    Slot("change", "new", "new"),
)
_PHRASE = "{change} {degree} {pattern} {laterality} {site} <NOUN>"
_HEDGED: dict[Hedge, tuple[tuple[str, str], ...]] = {
    Hedge.POSSIBLE: (("{certainty} PHRASE.", "possible"), ("Findings {certainty} ARTICLE PHRASE.", "may represent")),
    Hedge.PROBABLE: (("{certainty} PHRASE.", "probable"),),
    Hedge.CANNOT_EXCLUDE: (
        ("{certainty} ARTICLE PHRASE.", "cannot exclude"),
        ("ARTICLE PHRASE {certainty}.", "cannot be excluded"),
    ),
}
_NEGATIONS = (
    ("{certainty} {pattern} {laterality} MENTIONS.", "no"),
    ("There is {certainty} {pattern} {laterality} MENTIONS.", "no"),
    ("{certainty} {pattern} {laterality} MENTIONS.", "no evidence of"),
    ("{certainty} {pattern} {laterality} MENTIONS is seen.", "no"),
)
_NORMAL_HEART = ("<Heart size> is {certainty}.", "The <cardiac silhouette> is {certainty} in size.")
_INDICATIONS = (
    "Cough and fever. Evaluate for pneumonia.",
    "Shortness of breath.",
    "Chest pain, rule out pneumothorax.",
    "Follow-up of pleural effusion.",
    "Preoperative examination.",
    "History of cardiomegaly and dyspnea.",
    "Known lung nodule, surveillance.",
)
_TECHNIQUES = ("PA view of the chest.", "Single frontal radiograph of the chest.")
_COMPARISONS = ("Chest radiograph from three months earlier, with pleural effusion.", "Prior chest radiograph.")
_BONES = (
    "No acute osseous abnormality.",
    "The visualized bones are intact.",
    "The osseous structures are unremarkable.",
)
_SUMMARIES = ("No acute cardiopulmonary abnormality.", "No acute cardiopulmonary process.")


@dataclass(frozen=True)
class _Claim:
    """A finding that the report is going to state, in FINDINGS and again in IMPRESSION."""

    category: str
    slots: dict[str, Slot]
    hedge: Hedge | None = None

    @property
    def certainty(self) -> Certainty:
        return Certainty.PRESENT if self.hedge in (None, Hedge.PROBABLE) else Certainty.UNCERTAIN

    @property
    def plural(self) -> bool:
        side = self.slots.get("laterality")
        return side is not None and side.value == Laterality.BILATERAL


def write_report(lesions: tuple[Lesion, ...], rng: np.random.Generator) -> tuple[str, tuple[Finding, ...]]:
    """Write the report of a study.

    Parameters
    ----------
    lesions
        What the image shows; all of it is reported, some of it with a hedge.
    rng
        Decides on wording, on which absent categories are denied, and on a rare doubtful finding the image lacks.

    Returns
    -------
    text
        The whole report.
    findings
        Every statement of FINDINGS and IMPRESSION in the order of the text; spans are offsets into ``text``.
    """
    writer = ReportWriter()
    has_prior = _front_matter(writer, rng)
    claims = _claims(lesions, rng, has_prior=has_prior)
    writer.plain("FINDINGS: ")
    _findings_section(writer, claims, lesions, rng)
    writer.plain("\nIMPRESSION: ")
    _impression_section(writer, claims, rng)
    return writer.text, tuple(writer.findings)


def _front_matter(writer: ReportWriter, rng: np.random.Generator) -> bool:
    """Write the sections that state no finding; tell whether there is an earlier examination."""
    if rng.random() < 0.3:
        return False
    has_prior = bool(rng.random() < 0.5)
    writer.plain(f"INDICATION: {_pick(rng, _INDICATIONS)}\n")
    writer.plain(f"TECHNIQUE: {_pick(rng, _TECHNIQUES)}\n")
    writer.plain(f"COMPARISON: {_pick(rng, _COMPARISONS) if has_prior else 'None.'}\n")
    return has_prior


def _claims(lesions: tuple[Lesion, ...], rng: np.random.Generator, *, has_prior: bool) -> list[_Claim]:
    claims: list[_Claim] = []
    for category in CATEGORIES:
        own = [lesion for lesion in lesions if lesion.category == category]
        if _can_join(own) and rng.random() < 0.6:
            both = Slot("laterality", "bilateral", Laterality.BILATERAL)
            claims.append(_claim(own[0], rng, has_prior=has_prior, side=both))
        else:
            claims += [_claim(lesion, rng, has_prior=has_prior) for lesion in own]
        if not own and category != "cardiomegaly" and rng.random() < 0.05:
            side = _pick(rng, (Laterality.LEFT, Laterality.RIGHT))
            hedge = _pick(rng, (Hedge.POSSIBLE, Hedge.CANNOT_EXCLUDE))
            claims.append(_Claim(category, {"laterality": Slot("laterality", str(side), side)}, hedge))
    return claims


def _can_join(lesions: list[Lesion]) -> bool:
    """Whether two lesions read as one bilateral finding: alike in all but the side, of a category with a plural."""
    if len(lesions) != 2 or lesions[0].category not in _PLURALS:
        return False
    return lesions[0].model_copy(update={"laterality": lesions[1].laterality}) == lesions[1]


def _claim(lesion: Lesion, rng: np.random.Generator, *, has_prior: bool, side: Slot | None = None) -> _Claim:
    slots: dict[str, Slot] = {}
    if lesion.laterality is not None:
        slots["laterality"] = side or Slot("laterality", str(lesion.laterality), lesion.laterality)
    if lesion.site is not None and rng.random() < 0.9:
        slots["site"] = _pick(rng, _SITES[lesion.site])
    degree = _degree(lesion, rng)
    if degree is not None:
        slots["degree"] = degree
    if lesion.category == "consolidation" and side is None and rng.random() < 0.3:
        slots["pattern"] = _pick(rng, (Slot("pattern", "patchy", "patchy"), Slot("pattern", "focal", "focal")))
    if has_prior and rng.random() < 0.35:
        slots["change"] = _pick(rng, _CHANGES)
    hedge = _pick(rng, tuple(_HEDGED)) if lesion.category != "cardiomegaly" and rng.random() < 0.12 else None
    return _Claim(lesion.category, slots, hedge)


def _degree(lesion: Lesion, rng: np.random.Generator) -> Slot | None:
    if lesion.size_mm is not None:
        if rng.random() < 0.6:
            return Slot("size_mm", f"{lesion.size_mm:.0f} mm", lesion.size_mm)
        if lesion.size_mm <= 19:
            return Slot("size", "small", "small")
        return Slot("size", "large", "large") if lesion.size_mm >= 26 else None
    if lesion.severity is None or rng.random() < 0.12:
        return None
    return _pick(rng, _DEGREES[lesion.category][lesion.severity])


def _findings_section(
    writer: ReportWriter, claims: list[_Claim], lesions: tuple[Lesion, ...], rng: np.random.Generator
) -> None:
    """Write heart, lungs, pleura and bones: what is there, then what is not."""
    sentences = 0
    claimed = {claim.category for claim in claims}
    for claim in sorted(claims, key=lambda one: one.category != "cardiomegaly"):
        _separate(writer, sentences)
        _state_claim(writer, claim, rng, brief=False)
        sentences += 1
    denied = [category for category in CATEGORIES if category not in claimed and rng.random() < 0.8]
    for group in _denial_groups(denied, claimed, rng):
        _separate(writer, sentences)
        _deny(writer, group, rng)
        sentences += 1
    for side in (Laterality.LEFT, Laterality.RIGHT):
        shown = {lesion.laterality for lesion in lesions if lesion.category == "pleural_effusion"}
        if len(shown) == 1 and side not in shown and rng.random() < 0.3:
            _separate(writer, sentences)
            slots = {"certainty": _absent("no"), "laterality": Slot("laterality", str(side), side)}
            template = "{certainty} {laterality} <pleural effusion>."
            writer.state(template, ("pleural_effusion",), slots, certainty=Certainty.ABSENT)
            sentences += 1
    if rng.random() < 0.5 or sentences == 0:
        _separate(writer, sentences)
        _bones(writer, rng)


def _state_claim(writer: ReportWriter, claim: _Claim, rng: np.random.Generator, *, brief: bool) -> None:
    slots: dict[str, Slot | None] = dict(claim.slots)
    if brief:
        slots.pop("change", None)
        slots.pop("pattern", None)
    if claim.hedge is not None:
        form, words = _pick(rng, _HEDGED[claim.hedge])
        slots["certainty"] = Slot("certainty", words, claim.certainty)
    else:
        form = _pick(rng, _forms(claim, brief=brief))
    if "{adverb}" in form:
        degree = slots.pop("degree", None)
        slots["adverb"] = replace(degree, words=f"{degree.words}ly") if degree is not None else None
    noun = _pick(rng, _PLURALS[claim.category] if claim.plural else _NOUNS[claim.category])
    uncounted = claim.plural or claim.category in _UNCOUNTED
    template = form.replace("PHRASE", _PHRASE).replace("ARTICLE ", "" if uncounted else "{a} ")
    template = template.replace("NOUN", noun).replace("ISARE", "are" if claim.plural else "is")
    writer.state(template, (claim.category,), slots, certainty=claim.certainty, hedge=claim.hedge)


def _forms(claim: _Claim, *, brief: bool) -> list[str]:
    """Sentence forms that suit the slots of a claim."""
    if brief:
        return ["PHRASE."]
    forms = ["PHRASE.", "There ISARE ARTICLE PHRASE.", "ARTICLE PHRASE ISARE present."]
    if claim.category == "cardiomegaly":
        # "Mildly enlarged": the severity stands inside the words that name the finding.
        return [*forms, "The <heart is {adverb} enlarged>.", "The <cardiac silhouette is {adverb} enlarged>."]
    site = claim.slots.get("site")
    if site is not None and site.value != "lung_apex" and not claim.plural:
        forms += ["ARTICLE {change} {degree} {pattern} <NOUN> in the {laterality} {site}."] * 2
    if site is None and not claim.plural:
        forms.append("{change} {degree} {pattern} <NOUN> on the {laterality}.")
    return forms


def _denial_groups(denied: list[str], claimed: set[str], rng: np.random.Generator) -> list[tuple[str, ...]]:
    """Group what is denied as reports do: the pleura in one sentence, clear lungs in another."""
    groups: list[tuple[str, ...]] = []
    pleural = [category for category in ("pneumothorax", "pleural_effusion") if category in denied]
    if len(pleural) == 2 and rng.random() < 0.7:
        groups.append(tuple(pleural if rng.random() < 0.5 else reversed(pleural)))
    else:
        groups += [(category,) for category in pleural]
    groups += [(category,) for category in ("consolidation", "nodule") if category in denied]
    if not {"consolidation", "nodule"} & claimed and rng.random() < 0.5:
        groups = [group for group in groups if group != ("nodule",)] + [("lung_opacity",)]
    if "cardiomegaly" in denied:
        groups.insert(0, ("cardiomegaly",))
    return groups


def _deny(writer: ReportWriter, categories: tuple[str, ...], rng: np.random.Generator) -> None:
    if categories == ("lung_opacity",):
        slots = {"certainty": _absent("clear")}
        template = _pick(rng, ("The <lungs> are {certainty}.", "Both <lungs> are {certainty}."))
        writer.state(template, categories, slots, certainty=Certainty.ABSENT, alignment=Alignment.INFERRED)
        return
    if categories == ("cardiomegaly",) and rng.random() < 0.8:
        slots = {"certainty": _absent("normal")}
        template = _pick(rng, _NORMAL_HEART)
        writer.state(template, categories, slots, certainty=Certainty.ABSENT, alignment=Alignment.NORMALISED)
        return
    form, words = _pick(rng, _NEGATIONS)
    mentions = " or ".join(f"<{_NOUNS[category][0]}>" for category in categories)
    slots = {"certainty": _absent(words)}
    if categories == ("consolidation",) and rng.random() < 0.6:
        slots["pattern"] = Slot("pattern", "focal", "focal")
    writer.state(form.replace("MENTIONS", mentions), categories, slots, certainty=Certainty.ABSENT)


def _bones(writer: ReportWriter, rng: np.random.Generator) -> None:
    if rng.random() < 0.3:
        slots = {
            "degree": Slot("severity", "mild", "mild"),
            "site": Slot("site", "thoracic spine", "thoracic_spine"),
        }
        writer.state("{degree} <degenerative changes> of the {site}.", ("degenerative_spine",), slots)
    else:
        writer.plain(_pick(rng, _BONES))


def _impression_section(writer: ReportWriter, claims: list[_Claim], rng: np.random.Generator) -> None:
    if not claims:
        writer.plain(_pick(rng, _SUMMARIES))
        return
    numbered = len(claims) > 1 and rng.random() < 0.5
    for position, claim in enumerate(claims):
        _separate(writer, position)
        if numbered:
            writer.plain(f"{position + 1}. ")
        _state_claim(writer, claim, rng, brief=True)


def _absent(words: str) -> Slot:
    return Slot("certainty", words, Certainty.ABSENT)


def _separate(writer: ReportWriter, sentences: int) -> None:
    if sentences:
        writer.plain(" ")


def _pick(rng: np.random.Generator, options: Sequence[_T]) -> _T:
    return options[int(rng.integers(len(options)))]
