"""Words of phantom reports that state no finding: section headings, front matter, normal sentences, tails."""

from __future__ import annotations

from dataclasses import dataclass

from medfilip.phantom.dice import Dice


@dataclass(frozen=True)
class Style:
    """How one radiologist writes.

    ``heading`` formats the name of a section; ``names`` are what findings and impression are called.
    """

    heading: str
    names: tuple[str, str]
    mimic: bool
    british: bool
    upper: bool
    numbered: bool
    terse: float
    """Share of abbreviations."""


_HEADINGS = ("{}: ", "{}: ", "{}: ", "{}:\n", "{}\n", "{}:  ")
_NAMES = (
    ("FINDINGS", "IMPRESSION"), ("FINDINGS", "IMPRESSION"), ("FINDINGS", "IMPRESSION"), ("Findings", "Impression"),
    ("FINDINGS", "CONCLUSION"), ("Report", "Conclusion"), ("Findings", "Opinion"), ("REPORT", "IMPRESSION"),
)  # fmt: skip
_INDICATIONS = (
    "Cough and fever. Evaluate for pneumonia.",
    "Shortness of breath.",
    "Chest pain.",
    "Chest pain, rule out pneumothorax.",
    "Follow-up of pleural effusion.",
    "Preoperative examination.",
    "History of cardiomegaly and dyspnea.",
    "Known lung nodule, surveillance.",
    "Dyspnea.",
    "Cough.",
    "?pneumonia",
    "Tube placement.",
    "Hypoxia, evaluate for edema.",
    "Fall, rule out rib fracture.",
    "Status post thoracentesis.",
    "Positive tuberculin test.",
)
_TECHNIQUES = (
    "PA and lateral views of the chest.",
    "PA view of the chest.",
    "Single frontal radiograph of the chest.",
    "Portable AP view of the chest.",
    "Chest, two views.",
    "Frontal and lateral chest radiographs.",
)
_COMPARISONS = (
    "Prior chest radiograph.",
    "Chest radiograph from three months earlier, with pleural effusion.",
    "___.",
    "Chest radiograph of the previous day.",
    "CT of the chest.",
    "Outside radiograph.",
)
_TITLES = ("Chest radiograph", "CHEST, PA AND LATERAL", "PORTABLE CHEST RADIOGRAPH", "CHEST X-RAY", "Chest PA")
_MONTHS = "January February March April May June July August September October November December"
MONTHS = tuple(_MONTHS.split())

NORMAL = (
    "No acute osseous abnormality.",
    "The mediastinal contours are normal.",
    "The visualized bones are intact.",
    "The osseous structures are unremarkable.",
    "Pulmonary vascularity is within normal limits.",
    "The trachea is midline.",
    "The hilar contours are normal.",
    "Soft tissues are unremarkable.",
    "The upper abdomen is unremarkable.",
    "Bony structures are intact.",
    "The mediastinum is unremarkable.",
    "The costophrenic angles are sharp.",
    "No acute bony abnormality.",
    "The diaphragm is well defined.",
    "Bony thorax is unremarkable.",
    "The airways are patent.",
    "Hila are unremarkable.",
    "The pulmonary vasculature is normal.",
    "Visualized soft tissues appear normal.",
)
SUMMARIES = (
    "No acute cardiopulmonary abnormality.",
    "No acute cardiopulmonary process.",
    "No acute cardiopulmonary disease.",
    "Normal chest.",
    "No acute disease.",
    "No active disease.",
    "No acute cardiopulmonary findings.",
    "No acute intrathoracic process.",
    "Normal chest radiograph.",
    "No evidence of acute cardiopulmonary disease.",
    "Negative chest.",
    "Normal study.",
)
_PARTS = (
    "mediastinal contours", "hilar contours", "pulmonary vasculature", "osseous structures", "soft tissues",
    "upper abdomen", "trachea", "hila", "bony thorax", "central airways", "visualized bones", "diaphragm contours",
    "thoracic inlet", "mediastinal silhouette", "chest wall", "paraspinal lines", "visualized upper abdomen",
)  # fmt: skip
_NORMALITY = (
    "normal",
    "unremarkable",
    "within normal limits",
    "stable",
    "grossly unremarkable",
    "intact",
    "normal in appearance",
)
_ADVICE = (
    "Clinical correlation is recommended.",
    "Follow-up is recommended.",
    "Recommend CT of the chest for further evaluation.",
    "Findings were discussed with the referring team.",
    "Follow-up in six weeks is advised.",
    "Correlate with prior imaging.",
)
_VIEWS = (
    "on the lateral view", "on the frontal view", "on this portable study", "on the current examination", "on both "
    "views", "on today's study", "in this projection",
    "given differences in technique", "allowing for positioning", "on this single view", "with allowance for technique",
)  # fmt: skip


def draw_style(dice: Dice) -> Style:
    """Draw the habits of a report."""
    mimic = dice.chance(0.15)
    names = _NAMES[0] if mimic else dice.pick(_NAMES)
    heading = "{}:\n\n" if mimic else dice.pick(_HEADINGS)
    return Style(
        heading=heading,
        names=names,
        mimic=mimic,
        british=dice.chance(0.12),
        upper=dice.chance(0.06),
        numbered=dice.chance(0.5),
        terse=0.5 if dice.chance(0.15) else 0.04,
    )


def _techniques(views: tuple[str, ...] | None) -> tuple[str, ...]:
    """Sentences on technique that are true of the images."""
    if views is None:
        return _TECHNIQUES
    if "LL" in views:
        return tuple(text for text in _TECHNIQUES if "lateral" in text or "two" in text)
    wrong = ("lateral", "two", "PA") if views[0] == "AP" else ("lateral", "two", "Portable")
    return tuple(text for text in _TECHNIQUES if not any(word in text for word in wrong))


def front_matter(
    style: Style, dice: Dice, views: tuple[str, ...] | None = None, sex: str | None = None
) -> tuple[str, bool]:
    """Return the sections that state no finding, and whether there is an earlier examination.

    ``views`` and ``sex`` are those of the study, or ``None`` where any will do.
    """
    examination = "CHEST (PA AND LAT)" if views is None or "LL" in views else f"CHEST ({views[0]})"
    techniques = _techniques(views)
    if style.mimic:
        prior = dice.chance(0.6)
        return (
            f"FINAL REPORT\nEXAMINATION: {examination}\n\n"
            f"INDICATION: ___ year old {_person(dice, sex)} with {_lowered(dice.favour(_INDICATIONS))}\n\n"
            f"TECHNIQUE: {dice.favour(techniques)}\n\nCOMPARISON: {'___.' if prior else 'None.'}\n\n"
        ), prior
    title = f"{dice.favour(_titles(views))}\n\n" if dice.chance(0.1) else ""
    if dice.chance(0.25):
        return title, False
    prior = dice.chance(0.5)
    text = f"{title}{style.heading.format('INDICATION')}{dice.favour(_INDICATIONS)}\n"
    if dice.chance(0.6):
        text += f"{style.heading.format('TECHNIQUE')}{dice.favour(techniques)}\n"
    return text + f"{style.heading.format('COMPARISON')}{dice.favour(_COMPARISONS) if prior else 'None.'}\n", prior


def normal_sentence(dice: Dice) -> str:
    """Return a sentence that calls something normal which is no category of a finding."""
    if dice.chance(0.6):
        return dice.favour(NORMAL)
    parts = dice.some(_PARTS, 1 + dice.chance(0.8) + dice.chance(0.45) + dice.chance(0.2))
    joined = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    article = "the " if dice.chance(0.6) else ""
    sentence = f"{article}{joined} are {dice.favour(_NORMALITY)}."
    return sentence[0].upper() + sentence[1:]


def advice(dice: Dice) -> str:
    """Return a sentence that advises and states no finding."""
    return dice.favour(_ADVICE)


def when(dice: Dice) -> str:
    """Return how an earlier examination is called."""
    kind = dice.throw()
    if kind < 0.3:
        return dice.favour(
            ("the prior study", "the previous examination", "the prior radiograph", "the prior exam", "___")
        )
    if kind < 0.45:
        return f"the study of {dice.pick(MONTHS)} {dice.number(2008, 2020)}"
    if kind < 0.8:
        return f"the study of {dice.pick(MONTHS)} {dice.number(1, 29)}, {dice.number(2008, 2020)}"
    return f"the examination {dice.number(2, 28)} {dice.pick(('days', 'weeks', 'months'))} ago"


def view(dice: Dice, views: tuple[str, ...] | None = None) -> str:
    """Return on which view something is seen."""
    if dice.chance(0.33):
        return f"on the image obtained at {dice.number(1, 13)}:{dice.number(0, 60):02d} {dice.pick(('AM', 'PM'))}"
    if views is not None:
        wrong = ["portable"] if views[0] == "PA" else []
        wrong += ["single"] if "LL" in views else ["lateral", "both"]
        return dice.favour([words for words in _VIEWS if not any(one in words for one in wrong)])
    return dice.favour(_VIEWS)


def _titles(views: tuple[str, ...] | None) -> tuple[str, ...]:
    if views is None:
        return _TITLES
    wrong = ("PA", "LATERAL") if views[0] == "AP" else ("PORTABLE",) if "LL" in views else ("PORTABLE", "LATERAL")
    return tuple(title for title in _TITLES if not any(word in title for word in wrong))


def _person(dice: Dice, sex: str | None) -> str:
    drawn = dice.pick(("man", "woman"))
    return drawn if sex is None else "woman" if sex == "F" else "man"


def _lowered(text: str) -> str:
    return text[0].lower() + text[1:]
