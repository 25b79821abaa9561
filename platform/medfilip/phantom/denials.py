"""What a phantom report states as absent: negations, normal organs, and what has resolved."""

from __future__ import annotations

import re

from medfilip.findings.finding import Alignment, Certainty, Change, Evidence, Finding, Laterality
from medfilip.phantom import wording
from medfilip.phantom.claims import NOUNS
from medfilip.phantom.draft import Draft
from medfilip.phantom.lesions import Lesion
from medfilip.phantom.writer import Slot

_RESOLVED = (
    ("{change} {laterality} <NOUN>.", "interval resolution of the"),
    ("the {laterality} <NOUN> {change}.", "has resolved"),
    ("previously seen {laterality} <NOUN> is {change}.", "no longer seen"),
)
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
_NORMAL_HEART: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("<heart size> is {certainty}.", ("cardiomegaly",)),
    ("the <cardiac silhouette> is {certainty} in size.", ("cardiomegaly",)),
    ("<heart size> and <mediastinal contours> are {certainty}.", ("cardiomegaly", "mediastinal_widening")),
    ("the <heart> is {certainty} in size.", ("cardiomegaly",)),
    ("the <heart size> and <pulmonary vascularity> are {certainty}.", ("cardiomegaly", "vascular_congestion")),
    ("<cardiomediastinal silhouette> is {certainty}.", ("cardiomegaly",)),
    (
        "the <heart>, <hila> and <mediastinum> are {certainty}.",
        ("cardiomegaly", "hilar_enlargement", "mediastinal_widening"),
    ),
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
_NOT_CLEAR = {
    "consolidation", "nodule", "pleural_effusion", "atelectasis", "edema", "interstitial_opacity", "mass", "cavity",
    "hypoinflation", "hyperinflation",
}  # fmt: skip
"""With one of these nobody calls the lungs clear or well expanded."""
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


def denial_groups(denied: list[str], claimed: set[str], extras: set[str], report: Draft) -> list[tuple[str, ...]]:
    """Group what is denied as reports do: the pleura in one sentence, clear lungs in another."""
    dice = report.dice
    groups: list[tuple[str, ...]] = []
    rest = [category for category in _DENIABLE if category not in extras | claimed]
    if (extras | claimed) & {"heart_failure", "edema"}:
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
    if not _NOT_CLEAR & claimed and not extras and dice.chance(0.5):
        groups = [group for group in groups if group != ("nodule",)] + [("lung_opacity",)]
    elif dice.chance(0.2):
        groups.append(tuple(dice.some(rest, 1 + dice.chance(0.3))))
    if "cardiomegaly" in denied:
        groups.insert(0, ("cardiomegaly",))
    return groups


def deny(report: Draft, categories: tuple[str, ...]) -> None:
    """Append a sentence that denies categories."""
    dice = report.dice
    if categories == ("lung_opacity",):
        slots = {"certainty": _absent(dice.favour(("clear", "grossly clear")))}
        template = dice.favour(_CLEAR_LUNGS)
        report.state(template, categories, slots, certainty=Certainty.ABSENT, alignment=Alignment.INFERRED)
        return
    if categories == ("cardiomegaly",) and dice.chance(0.9):
        slots = {"certainty": _absent(dice.favour(_NORMAL))}
        template, named = dice.favour(_fitting_hearts(report))
        report.state(template, named, slots, certainty=Certainty.ABSENT, alignment=Alignment.NORMALISED)
        return
    form, words = dice.favour(_NEGATIONS)
    slots = {"certainty": _absent(words)}
    names = [report.spelt(dice.favour(_DENIED_NOUNS.get(category, NOUNS.get(category, ())))) for category in categories]
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
        template = f"{template[:-1]} {wording.view(dice, report.views)}."
    report.state(template, categories, slots, certainty=Certainty.ABSENT)


def _fitting_hearts(report: Draft) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Sentences on a normal heart that call nothing else normal which the image shows to be abnormal."""
    if "edema" not in report.shown:
        return _NORMAL_HEART
    return tuple(one for one in _NORMAL_HEART if not {"vascular_congestion", "hilar_enlargement"} & {*one[1]})


def deny_one_side(report: Draft, lesions: tuple[Lesion, ...], claimed: set[str]) -> None:
    """Deny an effusion on the side that has none, or say that one has resolved."""
    dice = report.dice
    shown = {lesion.laterality for lesion in lesions if lesion.category == "pleural_effusion"}
    free = [side for side in (Laterality.LEFT, Laterality.RIGHT) if side not in shown]
    if report.has_prior and free and (shown or "pleural_effusion" not in claimed) and dice.chance(0.06):
        side, (form, words) = dice.pick(free), dice.favour(_RESOLVED)
        slots = {"change": Slot("change", words, Change.RESOLVED), "laterality": Slot("laterality", str(side), side)}
        noun = dice.pick(NOUNS["pleural_effusion"])
        report.state(form.replace("NOUN", noun), ("pleural_effusion",), slots, certainty=Certainty.ABSENT)
    elif len(free) == 1 and len(shown) == 1 and dice.chance(0.25):
        slots = {"certainty": _absent("no"), "laterality": Slot("laterality", str(free[0]), free[0])}
        template = "{certainty} {laterality} <pleural effusion>."
        report.state(template, ("pleural_effusion",), slots, certainty=Certainty.ABSENT)


_CONTRADICTED = tuple(
    (re.compile(words, re.IGNORECASE), frozenset(categories.split()))
    for words, categories in (
        (r"osseous|bon[ey]|thorax", "rib_fracture scoliosis"),
        (r"vascul|hila", "edema mass"),
        (r"costophrenic", "pleural_effusion"),
        (r"diaphragm", "hypoinflation hyperinflation atelectasis pneumoperitoneum pleural_effusion hiatal_hernia"),
        (r"mediastin|paraspinal", "tortuous_aorta hiatal_hernia atelectasis aortic_calcification scoliosis"),
        (r"soft tissue|chest wall|axill", "subcutaneous_emphysema pacemaker surgical_material"),
        (r"abdomen", "pneumoperitoneum enteric_tube surgical_material"),
        (r"trachea|airway|inlet", "endotracheal_tube tortuous_aorta atelectasis central_venous_catheter"),
    )
)
"""What no sentence of normality may name beside a drawn finding."""


def contradicts(sentence: str, shown: frozenset[str]) -> bool:
    """Whether a sentence calls something normal that is not."""
    return any(words.search(sentence) and categories & shown for words, categories in _CONTRADICTED)


_ORGANS = re.compile(
    r"(?P<mediastinal_widening>mediastinal contours|mediastinum)"
    r"|(?P<hilar_enlargement>hilar contours|hila)"
    r"|(?P<vascular_congestion>pulmonary vascula(?:ture|rity))",
    re.IGNORECASE,
)
_NORMALITY = re.compile(r"\b(?:normal|unremarkable|within normal limits|intact)\b", re.IGNORECASE)


def state_normal(report: Draft, sentence: str) -> None:
    """Append a sentence of normality; an organ whose disease has a category is denied by it, the others say nothing."""
    start = report.plain(sentence)
    normal = _NORMALITY.search(sentence)
    for organ in _ORGANS.finditer(sentence) if normal else ():
        assert normal is not None and organ.lastgroup is not None
        places = (("mention", organ.span()), ("certainty", normal.span()))
        report.writer.findings.append(
            Finding(
                category=organ.lastgroup,
                certainty=Certainty.ABSENT,
                alignment=Alignment.NORMALISED,
                evidence=tuple(Evidence(slot=slot, start=start + a, end=start + b) for slot, (a, b) in places),
            )
        )


def _absent(words: str) -> Slot:
    return Slot("certainty", words, Certainty.ABSENT)
