"""Synthetic reports: a small grammar of how radiologists write, with the exact truth of every statement.

What counts as truth, and is deliberately narrow:

- Only FINDINGS and IMPRESSION (whatever they are called) state findings. What INDICATION, TECHNIQUE and COMPARISON
  name is a question or history; advice is none either.
- A negated finding is absent; "heart size is normal" denies cardiomegaly, "the lungs are clear" denies lung opacity
  (inferred) and says nothing about nodules by name. Other sentences of normality state no finding. What has resolved,
  or is "no longer seen", is absent and resolved.
- "Probable" states a finding (present, hedged), "possible", "may represent", "cannot be excluded" and each side of a
  "versus" leave it open.
- A slot is filled only by words of the same statement: the impression repeats a finding as it is written there. In a
  coordination a word holds for what it grammatically belongs to: "bilateral effusions and atelectasis" are both
  bilateral, "left effusion with adjacent atelectasis" says no side of the atelectasis, and "left greater than right"
  is no side beside "bilateral". "RLL" is a side and a site, "bibasilar" both too.
- Misspelt words mean what they were meant to; capitals and British spelling change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from medfilip.findings.finding import Alignment, Certainty, Change, Finding, Hedge, Laterality
from medfilip.phantom import wording
from medfilip.phantom.dice import Dice
from medfilip.phantom.extras import LOBES, Extra, fill, load_extras
from medfilip.phantom.lesions import CATEGORIES, Lesion
from medfilip.phantom.wording import Style
from medfilip.phantom.writer import ReportWriter, Slot

TYPO_RATE = 0.012
"""Share of sentences with findings in which a word is misspelt."""

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
_RESOLVED = (
    ("{change} {laterality} <NOUN>.", "interval resolution of the"),
    ("the {laterality} <NOUN> {change}.", "has resolved"),
    ("previously seen {laterality} <NOUN> is {change}.", "no longer seen"),
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
_NEGATIONS = (
    ("{certainty} {pattern} {laterality} MENTIONS.", "no"),
    ("there is {certainty} {pattern} {laterality} MENTIONS.", "no"),
    ("{certainty} {pattern} {laterality} MENTIONS.", "no evidence of"),
    ("{certainty} {pattern} {laterality} MENTIONS is seen.", "no"),
    ("{certainty} {pattern} {laterality} MENTIONS is identified.", "no"),
    ("there is {certainty} {pattern} {laterality} MENTIONS.", "no evidence of"),
    ("{certainty} {pattern} {laterality} MENTIONS.", "negative for"),
    ("the lungs are {certainty} {pattern} {laterality} MENTIONS.", "without"),
)
_NORMAL_HEART = (
    "<heart size> is {certainty}.",
    "the <cardiac silhouette> is {certainty} in size.",
    "<heart size> and mediastinal contours are {certainty}.",
    "the <heart> is {certainty} in size.",
    "the <heart size> and pulmonary vascularity are {certainty}.",
    "<cardiomediastinal silhouette> is {certainty}.",
    "the <heart>, hila and mediastinum are {certainty}.",
)
_NORMAL = ("normal", "within normal limits", "unremarkable")
_CLEAR_LUNGS = (
    "the <lungs> are {certainty}.",
    "<lungs> are {certainty}.",
    "both <lungs> are {certainty}.",
    "the <lungs> are {certainty} bilaterally.",
    "the <lungs> are well expanded and {certainty}.",
    "the <lung fields> are {certainty}.",
)
_DENIABLE = (
    "edema",
    "mass",
    "lymphadenopathy",
    "pneumoperitoneum",
    "rib_fracture",
    "vascular_congestion",
    "pneumomediastinum",
)
"""What is denied beside the drawn categories; nothing above or below one of them."""

_DENIED_NOUNS = {
    "edema": ("pulmonary EDEMA", "EDEMA"),
    "mass": ("mass",),
    "lymphadenopathy": ("lymphadenopathy", "adenopathy"),
    "pneumoperitoneum": ("free air", "pneumoperitoneum"),
    "rib_fracture": ("rib fracture",),
    "vascular_congestion": ("vascular congestion",),
    "pneumomediastinum": ("pneumomediastinum",),
}
_DENIED_WITH = (Slot("pattern", "focal", "focal"), Slot("size", "large", "large"), Slot("chronicity", "acute", "acute"))
_JOINED = 0.38
"""Share of sentences that are joined to the one before where both have verbs."""

_SEVERITY = {None: 0, "minimal": 1, "mild": 2, "moderate": 3, "severe": 4}


@dataclass(frozen=True)
class _Claim:
    """A drawn finding that the report is going to state, in FINDINGS and again in IMPRESSION."""

    category: str
    slots: dict[str, Slot]
    hedge: Hedge | None = None
    tail: str = ""
    """What the plural is followed by: ", left greater than right"."""

    @property
    def certainty(self) -> Certainty:
        return Certainty.PRESENT if self.hedge in (None, Hedge.PROBABLE) else Certainty.UNCERTAIN

    @property
    def plural(self) -> bool:
        side = self.slots.get("laterality")
        return side is not None and side.value == Laterality.BILATERAL and self.category in _PLURALS


@dataclass
class _Report:
    """A report in the making."""

    writer: ReportWriter
    dice: Dice
    style: Style
    has_prior: bool
    detail: float
    """Chance of every further detail of a statement."""

    def spelt(self, text: str) -> str:
        return text.replace("EDEMA", "oedema" if self.style.british else "edema")

    sentences: int = 0
    """Of the section that is being written."""
    joinable: bool = False

    def open(self, heading: str) -> None:
        """Begin a section."""
        self.writer.plain(heading)
        self.sentences, self.joinable = 0, False

    def plain(self, sentence: str) -> None:
        """Append a sentence that states no finding."""
        self._separate(sentence)
        joined = self.writer.text.endswith(" and ")
        self.writer.plain(sentence[0].lower() + sentence[1:] if joined else sentence)

    def state(
        self,
        template: str,
        categories: tuple[str, ...],
        slots: Mapping[str, Slot | None],
        *,
        certainty: Certainty = Certainty.PRESENT,
        hedge: Hedge | None = None,
        alignment: Alignment = Alignment.EXACT,
    ) -> None:
        """Append a sentence with findings."""
        self._separate(template, joins=certainty != Certainty.UNCERTAIN and hedge is None)
        self.writer.state(template, categories, slots, certainty=certainty, hedge=hedge, alignment=alignment)

    def _separate(self, sentence: str, *, joins: bool = True) -> None:
        """Part a sentence from the one before, or join two that have verbs of their own: neither scopes the other."""
        joins = joins and sentence.endswith(".") and (" is " in sentence or " are " in sentence)
        if self.sentences and not self.writer.text.endswith((" ", "\n")):
            if joins and self.joinable and self.dice.chance(_JOINED):
                self.writer.text = self.writer.text[:-1] + " and "
                self.joinable = self.dice.chance(0.3)
                return
            self.writer.plain(" ")
        self.sentences += 1
        self.joinable = joins


def write_report(
    lesions: tuple[Lesion, ...],
    rng: np.random.Generator,
    *,
    typos: float = TYPO_RATE,
    with_image: bool = True,
) -> tuple[str, tuple[Finding, ...]]:
    """Write the report of a study.

    Parameters
    ----------
    lesions
        What the image shows; all of it is reported, some of it with a hedge.
    rng
        Decides on wording, on what the report names beside the lesions, on which absent categories are denied, and on
        a rare doubtful finding the image lacks.
    typos
        Share of statements with a misspelt word.
    with_image
        Whether the report belongs to an image: then it says nothing that the image would contradict, and less that
        the image does not show.

    Returns
    -------
    text
        The whole report.
    findings
        Every statement of FINDINGS and IMPRESSION in the order of the text; spans are offsets into ``text``.
    """
    dice = Dice(rng)
    style = wording.draw_style(dice)
    front, has_prior = wording.front_matter(style, dice)
    report = _Report(ReportWriter(front, dice=dice, typos=typos), dice, style, has_prior, detail=0.5)
    claims = _claims(lesions, report)
    extras = _draw_extras(dice, with_image=with_image)
    report.open(style.heading.format(style.names[0]))
    _findings_section(report, claims, extras, lesions)
    report.writer.plain("\n\n" if style.mimic else "\n")
    report.open(style.heading.format(style.names[1]))
    _impression_section(report, claims, extras)
    text = report.writer.text
    return text.upper() if style.upper else text, tuple(report.writer.findings)


@lru_cache(maxsize=1)
def _unrelated() -> tuple[Extra, ...]:
    return tuple(extra for extra in load_extras() if not extra.related)


def _draw_extras(dice: Dice, *, with_image: bool) -> list[Extra]:
    if not dice.chance(0.45 if with_image else 0.62):
        return []
    known = _unrelated() if with_image else load_extras()
    count = 1 + dice.chance(0.4) + (0 if with_image else dice.chance(0.3) + dice.chance(0.15))
    return dice.some(known, count)


def _claims(lesions: tuple[Lesion, ...], report: _Report) -> list[_Claim]:
    dice, claims = report.dice, []
    for category in CATEGORIES:
        own = [lesion for lesion in lesions if lesion.category == category]
        if len(own) == 2 and category in _PLURALS and dice.chance(0.6):
            claims.append(_joined_claim(own, report))
        else:
            claims += [_claim(lesion, report) for lesion in own]
        if not own and category != "cardiomegaly" and dice.chance(0.04):
            side = dice.pick((Laterality.LEFT, Laterality.RIGHT))
            hedge = dice.pick((Hedge.POSSIBLE, Hedge.CANNOT_EXCLUDE))
            claims.append(_Claim(category, {"laterality": Slot("laterality", str(side), side)}, hedge))
    return claims


def _joined_claim(own: list[Lesion], report: _Report) -> _Claim:
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


def _claim(lesion: Lesion, report: _Report, *, side: Slot | None = None) -> _Claim:
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
    return _Claim(lesion.category, slots, hedge)


def _degree(lesion: Lesion, dice: Dice) -> Slot | None:
    if lesion.size_mm is not None:
        if dice.chance(0.6):
            if dice.chance(0.3):
                return Slot("size_mm", f"{lesion.size_mm / 10:.1f} cm", lesion.size_mm)
            return Slot("size_mm", f"{lesion.size_mm:.0f} mm", lesion.size_mm)
        if lesion.size_mm <= 19:
            return Slot("size", "small", "small")
        return Slot("size", "large", "large") if lesion.size_mm >= 26 else None
    if lesion.severity is None or dice.chance(0.12):
        return None
    return dice.pick(_DEGREES[lesion.category][lesion.severity])


def _findings_section(report: _Report, claims: list[_Claim], extras: list[Extra], lesions: tuple[Lesion, ...]) -> None:
    """Write heart, lungs, pleura and bones: what is there, then what is not."""
    dice = report.dice
    for claim in sorted(claims, key=lambda one: one.category != "cardiomegaly"):
        _state_claim(report, claim, brief=False)
    for extra in extras:
        _state_extra(report, extra, brief=False)
    claimed = {claim.category for claim in claims}
    denied = [category for category in CATEGORIES if category not in claimed and dice.chance(0.72)]
    for group in _denial_groups(denied, claimed, {extra.category for extra in extras}, report):
        _deny(report, group)
    _deny_one_side(report, lesions, claimed)
    told: set[str] = set()
    for chance in (0.55, 0.3, 0.12):
        sentence = wording.normal_sentence(dice)
        if sentence not in told and (dice.chance(chance) or not report.sentences):
            report.plain(sentence)
            told.add(sentence)


def _deny_one_side(report: _Report, lesions: tuple[Lesion, ...], claimed: set[str]) -> None:
    """Deny an effusion on the side that has none, or say that one has resolved."""
    dice = report.dice
    shown = {lesion.laterality for lesion in lesions if lesion.category == "pleural_effusion"}
    free = [side for side in (Laterality.LEFT, Laterality.RIGHT) if side not in shown]
    if report.has_prior and free and (shown or "pleural_effusion" not in claimed) and dice.chance(0.06):
        side, (form, words) = dice.pick(free), dice.favour(_RESOLVED)
        slots = {"change": Slot("change", words, Change.RESOLVED), "laterality": Slot("laterality", str(side), side)}
        noun = dice.pick(_NOUNS["pleural_effusion"])
        report.state(form.replace("NOUN", noun), ("pleural_effusion",), slots, certainty=Certainty.ABSENT)
    elif len(free) == 1 and len(shown) == 1 and dice.chance(0.25):
        slots = {"certainty": _absent("no"), "laterality": Slot("laterality", str(free[0]), free[0])}
        template = "{certainty} {laterality} <pleural effusion>."
        report.state(template, ("pleural_effusion",), slots, certainty=Certainty.ABSENT)


def _state_claim(report: _Report, claim: _Claim, *, brief: bool) -> None:
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
    noun = dice.pick(_PLURALS[claim.category] if claim.plural else _NOUNS[claim.category])
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
    elif claim.category == "pleural_effusion" and form == "PHRASE." and claim.hedge is None and dice.chance(0.2):
        template, categories = _coordinated(template, slots, dice, plural=claim.plural), (*categories, "atelectasis")
    report.state(template, categories, slots, certainty=claim.certainty, hedge=claim.hedge)


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


def _with_tail(report: _Report, form: str, slots: dict[str, Slot | None]) -> str:
    """Append a clause on the change since an earlier examination, or on the view."""
    dice = report.dice
    if report.has_prior and dice.chance(0.42):
        slots["change"] = dice.favour(_TAIL_CHANGES)
        since = dice.pick(("since", "compared to", "from", "as compared with"))
        form = form.replace("{change} ", "")
        tail = ", {change}" if dice.chance(0.4) else f", {{change}} {since} {wording.when(dice)}"
        return f"{form[:-1]}{tail}.".replace("PHRASE", _PHRASE.replace("{change} ", ""))
    if dice.chance(0.2):
        return f"{form[:-1]} {wording.view(dice)}."
    return form


def _forms(claim: _Claim, *, brief: bool) -> list[str]:
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


def _state_extra(report: _Report, extra: Extra, *, brief: bool) -> None:
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


def _denial_groups(denied: list[str], claimed: set[str], extras: set[str], report: _Report) -> list[tuple[str, ...]]:
    """Group what is denied as reports do: the pleura in one sentence, clear lungs in another."""
    dice = report.dice
    groups: list[tuple[str, ...]] = []
    rest = [category for category in _DENIABLE if category not in extras]
    if extras & {"heart_failure"}:
        rest = [category for category in rest if category not in ("edema", "vascular_congestion")]
    listed = [category for category in ("pneumothorax", "pleural_effusion", "consolidation") if category in denied]
    if len(listed) > 1 and dice.chance(0.7):
        more = dice.some(rest, 1 + dice.chance(0.3)) if dice.chance(0.42) else []
        kept = listed if dice.chance(0.5) else listed[:2]
        groups.append(tuple(dice.some([*kept, *more], len(kept) + len(more))))
        listed = [category for category in listed if category not in kept]
    groups += [(category,) for category in listed]
    if "nodule" in denied and dice.chance(0.4):
        groups.append(("nodule",))
    if not {"consolidation", "nodule", "pleural_effusion"} & claimed and not extras and dice.chance(0.5):
        groups = [group for group in groups if group != ("nodule",)] + [("lung_opacity",)]
    elif dice.chance(0.2):
        groups.append(tuple(dice.some(rest, 1 + dice.chance(0.3))))
    if "cardiomegaly" in denied:
        groups.insert(0, ("cardiomegaly",))
    return groups


def _deny(report: _Report, categories: tuple[str, ...]) -> None:
    dice = report.dice
    if categories == ("lung_opacity",):
        slots = {"certainty": _absent(dice.favour(("clear", "grossly clear")))}
        template = dice.favour(_CLEAR_LUNGS)
        report.state(template, categories, slots, certainty=Certainty.ABSENT, alignment=Alignment.INFERRED)
        return
    if categories == ("cardiomegaly",) and dice.chance(0.9):
        slots = {"certainty": _absent(dice.favour(_NORMAL))}
        template = dice.favour(_NORMAL_HEART)
        report.state(template, categories, slots, certainty=Certainty.ABSENT, alignment=Alignment.NORMALISED)
        return
    form, words = dice.favour(_NEGATIONS)
    slots = {"certainty": _absent(words)}
    names = [
        report.spelt(dice.favour(_DENIED_NOUNS.get(category, _NOUNS.get(category, ())))) for category in categories
    ]
    if "pneumothorax" in categories and dice.chance(report.style.terse):
        names[categories.index("pneumothorax")] = "PTX"
    marked = [f"<{name}>" for name in names]
    for number, category in enumerate(categories):
        with_ = {"consolidation": 0, "pleural_effusion": 1, "rib_fracture": 2}.get(category)
        if with_ is not None and dice.chance((0.6, 0.15, 0.6)[with_]):
            # "No focal consolidation or effusion": the word belongs to the noun behind it.
            slots[f"detail@{number}"] = _DENIED_WITH[with_]
            marked[number] = f"{{detail@{number}}} {marked[number]}"
    joined = (
        marked[0] if len(marked) == 1 else f"{', '.join(marked[:-1])} {dice.pick(('or', 'or', 'and'))} {marked[-1]}"
    )
    if len(marked) > 2 and dice.chance(0.5):
        joined = joined.replace(" or ", ", or ")
    template = form.replace("MENTIONS", joined)
    if dice.chance(0.07):
        template = f"{template[:-1]} {wording.view(dice)}."
    report.state(template, categories, slots, certainty=Certainty.ABSENT)


def _impression_section(report: _Report, claims: list[_Claim], extras: list[Extra]) -> None:
    dice, writer = report.dice, report.writer
    told = [extra for extra in extras if dice.chance(0.3)]
    total = len(claims) + len(told)
    if not total or (not claims and dice.chance(0.5)):
        report.plain(dice.favour(wording.SUMMARIES))
        return
    numbered = total > 1 and report.style.numbered
    for position in range(total):
        report.joinable = False
        if numbered:
            lead = "" if not position else "\n" if report.style.mimic else " "
            writer.plain(f"{lead}{position + 1}. ")
        if position < len(claims):
            _state_claim(report, claims[position], brief=True)
        else:
            _state_extra(report, told[position - len(claims)], brief=False)
    if dice.chance(0.12):
        report.plain(wording.advice(dice))


def _absent(words: str) -> Slot:
    return Slot("certainty", words, Certainty.ABSENT)
