"""What a phantom report states as there or as doubtful: claims about lesions, and findings of the text alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from medfilip.findings.finding import Certainty, Hedge, Laterality
from medfilip.phantom import wording
from medfilip.phantom.dice import Dice
from medfilip.phantom.draft import Draft
from medfilip.phantom.extras import LOBES, Extra, extras_by_category, fill, fill_shown, forms_for
from medfilip.phantom.lesions import BASIC_CATEGORIES, CATEGORIES, DEVICES, Lesion
from medfilip.phantom.writer import Slot

NOUNS = {
    "pleural_effusion": ("pleural effusion", "effusion"),
    "consolidation": ("consolidation",),
    "nodule": ("nodule",),
    "cardiomegaly": ("cardiomegaly", "cardiac enlargement"),
    "pneumothorax": ("pneumothorax",),
    "atelectasis": ("atelectasis",),
    "mass": ("mass",),
    "cavity": ("cavity", "cavitary lesion"),
}
"""Categories that are stated in phrases made here; all others are told by the sentences of `extras`."""
_PLURALS = {"pleural_effusion": ("pleural effusions", "effusions"), "consolidation": ("consolidations",)}
_UNCOUNTED = frozenset({"consolidation", "cardiomegaly", "atelectasis"})
_OMITTED = 0.08  # share of the devices that a report passes over, as reports do
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
    "atelectasis": {
        "mild": (Slot("severity", "mild", "mild"), Slot("severity", "mild", "mild")),
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
    Slot("change", "new", "new"),
    Slot("change", "increased", "increased"),
    Slot("change", "decreased", "decreased"),
    Slot("change", "persistent", "unchanged"),
    Slot("change", "improved", "decreased"),
    Slot("change", "worsening", "increased"),
    Slot("change", "enlarging", "increased"),
)
_TAIL_CHANGES = (
    Slot("change", "unchanged", "unchanged"),
    Slot("change", "without significant change", "unchanged"),
    Slot("change", "increased", "increased"),
    Slot("change", "decreased", "decreased"),
    Slot("change", "new", "new"),
    Slot("change", "improved", "decreased"),
    Slot("change", "worsened", "increased"),
)
_PHRASE = "{change} {degree} {pattern} {laterality} {site} <NOUN>"
_HEDGED: dict[Hedge, tuple[tuple[str, str], ...]] = {
    Hedge.POSSIBLE: (
        ("{certainty} PHRASE.", "possible"),
        ("findings {certainty} ARTICLE PHRASE.", "may represent"),
        ("{certainty} ARTICLE PHRASE.", "questionable"),
        ("there {certainty} ARTICLE PHRASE.", "may be"),
    ),
    Hedge.PROBABLE: (
        ("{certainty} PHRASE.", "probable"),
        ("{certainty} PHRASE.", "likely"),
        ("findings {certainty} ARTICLE PHRASE.", "most likely represent"),
    ),
    Hedge.CANNOT_EXCLUDE: (
        ("{certainty} ARTICLE PHRASE.", "cannot exclude"),
        ("ARTICLE PHRASE {certainty}.", "cannot be excluded"),
        ("ARTICLE PHRASE {certainty}.", "is not excluded"),
    ),
}
_VERBS = ("present", "seen", "noted", "identified", "demonstrated", "visualized", "evident")
_SEVERITY = {None: 0, "minimal": 1, "mild": 2, "moderate": 3, "severe": 4}


@dataclass(frozen=True)
class Claim:
    """A drawn finding that the report is going to state, in FINDINGS and again in IMPRESSION."""

    category: str
    slots: dict[str, Slot]
    hedge: Hedge | None = None
    tail: str = ""
    """What the plural is followed by: ", left greater than right"."""
    lesion: Lesion | None = None
    """What is told by a sentence of `extras`."""

    @property
    def certainty(self) -> Certainty:
        """What the hedge leaves of the finding."""
        return Certainty.PRESENT if self.hedge in (None, Hedge.PROBABLE) else Certainty.UNCERTAIN

    @property
    def plural(self) -> bool:
        """Whether it is stated of both sides at once."""
        side = self.slots.get("laterality")
        return side is not None and side.value == Laterality.BILATERAL and self.category in _PLURALS


def make_claims(lesions: tuple[Lesion, ...], report: Draft) -> list[Claim]:
    """Decide how each lesion is stated, and on a rare doubtful finding that is none of them."""
    dice, claims = report.dice, []
    for category in CATEGORIES:
        own = [lesion for lesion in lesions if lesion.category == category]
        if category not in NOUNS:
            claims += [
                Claim(category, {}, lesion=lesion)
                for lesion in own
                if category not in DEVICES or not dice.chance(_OMITTED)
            ]
            continue
        if len(own) == 2 and category in _PLURALS and dice.chance(0.6):
            claims.append(_joined_claim(own, report))
        else:
            claims += [_claim(lesion, report) for lesion in own]
        if not own and category in BASIC_CATEGORIES and category != "cardiomegaly" and dice.chance(0.04):
            side = dice.pick((Laterality.LEFT, Laterality.RIGHT))
            hedge = dice.pick((Hedge.POSSIBLE, Hedge.CANNOT_EXCLUDE))
            claims.append(Claim(category, {"laterality": Slot("laterality", str(side), side)}, hedge))
    return claims


def state_claim(report: Draft, claim: Claim, *, brief: bool) -> None:
    """Append the sentence of a claim; ``brief`` as an impression repeats it."""
    if claim.lesion is not None:
        _state_shown(report, claim.lesion, brief=brief)
        return
    dice, slots = report.dice, dict[str, Slot | None](claim.slots)
    if brief:
        slots.pop("change", None)
        slots.pop("pattern", None)
    if claim.hedge is not None:
        form, words = dice.favour(_HEDGED[claim.hedge])
        slots["certainty"] = Slot("certainty", words, claim.certainty)
    else:
        form = dice.pick(_forms(claim, brief=brief))
    if "{adverb}" in form:
        degree = slots.pop("degree", None)
        slots["adverb"] = replace(degree, words=f"{degree.words}ly") if degree is not None else None
    noun = dice.pick(_PLURALS[claim.category] if claim.plural else NOUNS[claim.category])
    if claim.category == "pneumothorax" and dice.chance(report.style.terse):
        noun = "PTX"
    uncounted = claim.plural or claim.category in _UNCOUNTED
    if not brief and claim.hedge is None and not claim.tail and "change" not in slots:
        form = _with_tail(report, form, slots)
    template = form.replace("PHRASE", _PHRASE).replace("ARTICLE ", "" if uncounted else "{a} ")
    template = template.replace("NOUN", noun).replace("ISARE", "are" if claim.plural else "is")
    categories: tuple[str, ...] = (claim.category,)
    if claim.tail and form == "PHRASE.":
        template = f"{template[:-1]}{claim.tail}."
    elif (
        claim.category == "pleural_effusion"
        and form == "PHRASE."
        and claim.hedge is None
        and report.views is None
        and dice.chance(0.2)
    ):
        template, categories = _coordinated(template, slots, dice, plural=claim.plural), (*categories, "atelectasis")
    report.state(template, categories, slots, certainty=claim.certainty, hedge=claim.hedge)


def _state_shown(report: Draft, lesion: Lesion, *, brief: bool) -> None:
    """Append a sentence of `extras` about a drawn lesion."""
    dice, extra = report.dice, extras_by_category()[lesion.category]
    forms = forms_for(extra, lesion)
    form = forms[0] if brief else dice.favour(forms)
    change = None
    if report.has_prior and "{change}" in form:
        change = dice.pick((_CHANGES[0], _CHANGES[1]))
    form = form.replace("{change} position", "place") if change is None else form
    slots = fill_shown(extra, form, lesion, dice, change=change, detail=0.75)
    if lesion.tip_mm is not None:
        form = form.replace("NUM", f"{lesion.tip_mm / 10:.1f}")
    template = f"{report.spelt(form)}."
    if not brief and "{change}" not in form and lesion.category not in DEVICES:
        template = _with_tail(report, template, slots)
    report.state(template, (extra.category,), slots)


def state_extra(report: Draft, extra: Extra, *, brief: bool) -> None:
    """Append a sentence that states a finding of the text alone."""
    dice = report.dice
    form = extra.forms[0] if brief else dice.favour(extra.forms)
    change = None
    if report.has_prior and "{change}" in form:
        change = dice.pick((_CHANGES[0], _CHANGES[1]))
    slots = fill(extra, form, dice, change=change, detail=report.detail)
    if "NUM" in form:
        form = form.replace("NUM", f"{dice.number(20, 75) / 10:.1f}" if dice.chance(0.8) else str(dice.number(2, 8)))
    form = form.replace("TLEVEL", f"T{dice.number(4, 13)}").replace("RIB", f"{dice.number(3, 11)}th")
    template = f"{report.spelt(form)}."
    if not brief and "{change}" not in form:
        template = _with_tail(report, template, slots)
    report.state(template, (extra.category,), slots)


def _joined_claim(own: list[Lesion], report: Draft) -> Claim:
    """State both sides as one finding; where they differ in degree, say on which side there is more."""
    both = Slot("laterality", "bilateral", Laterality.BILATERAL)
    first, second = own
    if first.model_copy(update={"laterality": second.laterality}) == second:
        return _claim(first, report, side=both)
    more, less = sorted(own, key=lambda lesion: -_SEVERITY[lesion.severity])
    claim = _claim(first.model_copy(update={"severity": None, "site": None}), report, side=both)
    if _SEVERITY[more.severity] == _SEVERITY[less.severity]:
        return claim
    words = report.dice.pick(("greater than", "larger than", "more than"))
    return replace(claim, hedge=None, tail=f", {more.laterality} {words} {less.laterality}")


def _claim(lesion: Lesion, report: Draft, *, side: Slot | None = None) -> Claim:
    dice, slots = report.dice, {}
    if lesion.laterality is not None:
        slots["laterality"] = side or Slot("laterality", str(lesion.laterality), lesion.laterality)
    if lesion.site is not None and dice.chance(0.9):
        slots["site"] = dice.pick(_SITES[lesion.site])
        short = LOBES.get((lesion.laterality, lesion.site)) if lesion.laterality else None
        if short is not None and side is None and dice.chance(report.style.terse):
            also = (("laterality", str(lesion.laterality)),)
            slots["site"] = Slot("site", short, lesion.site, also)
            del slots["laterality"]
    degree = _degree(lesion, dice)
    if degree is not None:
        slots["degree"] = degree
    if lesion.category == "consolidation" and side is None and dice.chance(0.3):
        slots["pattern"] = dice.pick((Slot("pattern", "patchy", "patchy"), Slot("pattern", "focal", "focal")))
    if report.has_prior and dice.chance(0.35):
        slots["change"] = dice.favour(_CHANGES)
    hedge = dice.pick(tuple(_HEDGED)) if lesion.category != "cardiomegaly" and dice.chance(0.12) else None
    return Claim(lesion.category, slots, hedge)


def _degree(lesion: Lesion, dice: Dice) -> Slot | None:
    if lesion.size_mm is not None:
        if dice.chance(0.6):
            if dice.chance(0.3):
                return Slot("size_mm", f"{lesion.size_mm / 10:.1f} cm", lesion.size_mm)
            return Slot("size_mm", f"{lesion.size_mm:.0f} mm", lesion.size_mm)
        small, large = (19, 26) if lesion.category == "nodule" else (36, 56)
        if lesion.size_mm <= small:
            return Slot("size", "small", "small")
        return Slot("size", "large", "large") if lesion.size_mm >= large else None
    if lesion.severity is None or dice.chance(0.12):
        return None
    return dice.pick(_DEGREES[lesion.category][lesion.severity])


def _coordinated(template: str, slots: dict[str, Slot | None], dice: Dice, *, plural: bool) -> str:
    """Turn "small left effusion." into "small left effusion with adjacent atelectasis."; slots follow their nouns."""
    if plural:
        for name in ("degree", "change", "site", "pattern"):
            slots[f"{name}@0"] = slots.pop(name, None)
            template = template.replace(f"{{{name}}}", f"{{{name}@0}}")
        return f"{template[:-1]} and <atelectasis>."
    for name in list(slots):
        slots[f"{name}@0"] = slots.pop(name)
    for name in ("change", "degree", "pattern", "laterality", "site"):
        template = template.replace(f"{{{name}}}", f"{{{name}@0}}")
    return f"{template[:-1]} with {dice.pick(('adjacent', 'associated', 'overlying'))} <atelectasis>."


def _with_tail(report: Draft, form: str, slots: dict[str, Slot | None]) -> str:
    """Append a clause on the change since an earlier examination, or on the view."""
    dice = report.dice
    if report.has_prior and dice.chance(0.42):
        slots["change"] = dice.favour(_TAIL_CHANGES)
        since = dice.pick(("since", "compared to", "from", "as compared with"))
        form = form.replace("{change} ", "")
        tail = ", {change}" if dice.chance(0.4) else f", {{change}} {since} {wording.when(dice)}"
        return f"{form[:-1]}{tail}.".replace("PHRASE", _PHRASE.replace("{change} ", ""))
    if dice.chance(0.2):
        return f"{form[:-1]} {wording.view(dice, report.views)}."
    return form


def _forms(claim: Claim, *, brief: bool) -> list[str]:
    """Sentence forms that suit the slots of a claim."""
    if brief or claim.tail:
        return ["PHRASE."]
    forms = [
        "PHRASE.",
        "PHRASE.",
        "there ISARE ARTICLE PHRASE.",
        *(f"ARTICLE PHRASE ISARE {verb}." for verb in _VERBS[:3]),
    ]
    if claim.category == "cardiomegaly":
        # "Mildly enlarged": the severity stands inside the words that name the finding.
        return [*forms, "the <heart is {adverb} enlarged>.", "the <cardiac silhouette is {adverb} enlarged>."]
    site = claim.slots.get("site")
    if "laterality" not in claim.slots:
        return forms
    if site is not None and site.value != "lung_apex" and not claim.plural:
        forms += ["ARTICLE {change} {degree} {pattern} <NOUN> in the {laterality} {site}."] * 2
    if site is None and not claim.plural:
        forms.append("{change} {degree} {pattern} <NOUN> on the {laterality}.")
    return forms
