"""Whether a report is about a radiograph of the chest: by its title, else by the anatomy its body speaks of.

Corpora hold knees, abdomens and CTs too, and a "joint effusion" must not become a pleural one. A report is refused
only on clear evidence: titles decide where they name an examination, and a body decides only where it names other
anatomy several times and the chest hardly. A chest radiograph that mentions a CT or the abdomen is one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from medfilip.reports.headers import exact_heading
from medfilip.reports.sections import BODY_SECTIONS, Section

Scope = Literal["not_chest", "not_radiograph"]

_CHEST = re.compile(
    r"\b(?:chest|cxr|thora(?:x|cic cage)|lungs?|ribs?|sternum|pulmonary|babygram|cardiac|heart)\b", re.IGNORECASE
)
_RADIOGRAPH = re.compile(
    r"\b(?:x-?\s?rays?|x-?xxxx|radiographs?|radiograph\w*|cxr|plain films?|portable|pa|ap|lateral|upright|erect"
    r"|supine|decubitus|views?|"
    r"cr|dx|frontal)\b",
    re.IGNORECASE,
)
_OTHER_MODALITY = re.compile(
    r"\b(?:ct|cta|ctpa|hrct|cat scan|computed tomograph\w*|computerized tomograph\w*|computerised tomograph\w*|mri"
    r"|mra|mr|mrcp|magnetic resonance|"
    r"ultrasound|ultrasonograph\w*|sonogra\w*|usg|doppler|echocardiogra\w*|pet|pet-ct|pet/ct|positron|mammogra\w*"
    r"|tomosynthesis|dexa|"
    r"densitometry|scintigra\w*|nuclear medicine|v/q|perfusion scan|bone scan|fluoroscop\w*|esophagram|oesophagram"
    r"|barium|angiogra\w*|"
    r"arthrogram|myelogram|cystogram|urogram|ivp|hsg|nm|mg)\b",
    re.IGNORECASE,
)
_OTHER_ANATOMY = re.compile(
    r"\b(?:knees?|patella\w*|tibia\w*|fibula\w*|femur|femoral|femora|hips?|acetabul\w*|pelvis|pelvic|sacr(?:um|al"
    r"|oiliac)|ankles?|talus|"
    r"calcane\w*|foot|feet|toes?|metatarsal\w*|heels?|wrists?|hands?|fingers?|thumb|metacarpal\w*|phalan(?:x|ges"
    r"|geal)|carpal\w*|"
    r"scaphoid|elbows?|olecranon|forearm|radius|radial|ulna\w*|shoulders?|humer(?:us|al)|glenohumeral|scapula|abdomen"
    r"|abdominal|kub|"
    r"bowel|colon|gallbladder|liver|hepatic|spleen|splenic|pancrea\w*|kidneys?|renal|ureter\w*|bladder|uter(?:us|ine)"
    r"|ovar(?:y|ies|ian)|"
    r"endometri\w*|prostate|append(?:ix|iceal)|stomach|brain|skull|cranial|intracranial|head|orbits?|sinus(?:es)?"
    r"|mandible|nasal|facial|"
    r"mastoid|ventricles|sulci|gyri|parenchymal volume|midline shift|infarct|gray-white|grey-white|cervical|lumbar"
    r"|lumbosacral|"
    r"thoracolumbar|coccyx|discs?|disks?|vertebral body heights|joint spaces?|meniscus|menisci|ligaments?|tendons?"
    r"|thyroid|carotid|"
    r"spine|clavicles?|breasts?|scrot\w*|testes|testicular|leg|legs|arm|neck|extremit(?:y|ies))\b",
    re.IGNORECASE,
)
_CHEST_BODY = re.compile(
    r"\b(?:lungs?|pleura\w*|pneumothora\w+|costophrenic|hemidiaphragms?|diaphragm\w*|mediastin\w+|cardio\w+|cardiac"
    r"|heart|hila|hilar|"
    r"hilum|pulmonary|bronch\w+|airspace|air space|atelecta\w+|consolidat\w+|pneumonia|infiltrates?|(?<!joint "
    r")effusions?|chest|thorax"
    r"|thoracic|aort\w+|"
    r"ribs?|perihilar|retrocardiac|apical|apices|basilar|emphysema\w*|copd|lobe|opacit(?:y|ies)|endotracheal"
    r"|sternotomy)\b",
    re.IGNORECASE,
)
_CROSS_SECTION = re.compile(
    r"\b(?:axial (?:images?|slices?|sections?|cuts?)|contiguous|collimation|multidetector|helical|hounsfield"
    r"|reformat\w*|reconstructions?|"
    r"(?:intravenous|iv|oral) contrast|contrast[- ]enhanced|non-?contrast|post-?contrast|t[12](?:[- ]weighted|w)"
    r"|flair|stir|diffusion|gadolinium|"
    r"sagittal|coronal|echogenic\w*|echotexture|hypoechoic|transducer|colou?r doppler|lung windows?|mm slices?)\b",
    re.IGNORECASE,
)
_SEEN_ON_CHEST_FILMS_LIST = """
shoulder shoulders humerus humeral scapula glenohumeral spine cervical thoracolumbar lumbar clavicle clavicles abdomen
abdominal bowel stomach colon neck breast breasts arm sinus sinuses disc discs disk disks radial radius
"""
_SEEN_ON_CHEST_FILMS = frozenset(_SEEN_ON_CHEST_FILMS_LIST.split())
_SURELY_CROSS_SECTION = re.compile(
    r"\b(?:axial (?:images?|slices?|sections?|cuts?)|contiguous|collimation|multidetector|helical|hounsfield|lung "
    r"windows?|"
    r"t[12](?:[- ]weighted|w)|flair|gadolinium|echotexture|hypoechoic|transducer|mm slices?)\b",
    re.IGNORECASE,
)
_NAMED_IN_HEADERS = re.compile(
    r"\b(?:teeth|tooth|dental|panoramic|opg|jaws?|cephalometr\w*|bitewing|abd|spines?)\b", re.IGNORECASE
)
_MAX_TITLE = 200
_ULTRASOUND_TITLE = re.compile(r"^\W*US\s+[A-Z]")
_LINE_OR_SENTENCE = re.compile(r"\n|(?<=\S)[.:](?=\s|$)")
_MAX_TITLE_WORDS = 12


def out_of_scope(text: str, sections: Sequence[Section], title: str | None = None) -> Scope | None:
    """Return why a report is not about a radiograph of the chest, or ``None``.

    Parameters
    ----------
    text, sections
        The report.
    title
        Name of the examination where the corpus has it in a field of its own.
    """
    body = " ".join(text[one.start : one.end] for one in sections if one.name in BODY_SECTIONS)
    names = [title] if title else []
    names += [text[one.start : one.end] for one in sections if one.name == "technique"]
    names.append(_heading(text, sections))
    for name in names:
        found = _by_title(name[:400], body)
        if found is not None:
            return None if found == "chest" else found
    return _by_body(body)


def names_chest(name: str) -> bool:
    """Whether an examination's name names the chest."""
    return bool(_CHEST.search(re.sub(r"[_\W]+", " ", name)))


def names_other_anatomy(name: str) -> bool:
    """Whether an examination's name, as image headers have it, names a part of the body that is not the chest."""
    words = re.sub(r"[_\W]+", " ", name)
    return bool(_OTHER_ANATOMY.search(words) or _NAMED_IN_HEADERS.search(words)) and not _CHEST.search(words)


def _heading(text: str, sections: Sequence[Section]) -> str:
    """Return what stands before the first section, or the first line or sentence of it that reads like a title."""
    if not sections:
        return ""
    first = sections[0]
    before = text[: first.start].strip(" \n\t:*#")
    if before and exact_heading(" ".join(before.lower().split())) is None:
        return before[:_MAX_TITLE]
    if before:
        return ""
    end = _LINE_OR_SENTENCE.search(text, first.start)
    line = text[first.start : end.start() if end else first.end].strip()
    named = line.isupper() and end is not None and end.group() == "\n"
    named = named or bool(_RADIOGRAPH.search(line) or _OTHER_MODALITY.search(line))
    return line if named and len(line.split()) <= _MAX_TITLE_WORDS else ""


def _by_title(name: str, body: str) -> Scope | Literal["chest"] | None:
    chest, other = _CHEST.search(name), _OTHER_ANATOMY.search(name)
    modality, film = _OTHER_MODALITY.search(name) or _ULTRASOUND_TITLE.match(name), _RADIOGRAPH.search(name)
    if (chest and (film or not modality)) or not (modality or other):
        return "chest" if chest and film else None
    in_body = _distinct(_CHEST_BODY, body)
    if modality and not film and _is_modality_name(name):
        if chest:
            return "not_radiograph"
        if other or in_body < 3:
            return "not_chest"
        return "not_radiograph" if _CROSS_SECTION.search(body) else None
    if other and not chest and len(name.split()) <= 16:
        # "KNEE, TWO VIEWS", "Abdomen": what the body says may still show that the chest was looked at too.
        return "not_chest" if in_body < 3 and in_body <= _distinct(_OTHER_ANATOMY, body) + bool(film) else None
    return None


def _is_modality_name(name: str) -> bool:
    """Whether a title names another modality as what was done, not as what is compared or recommended."""
    return len(name.split()) <= 16 and not re.search(
        r"\b(?:compar\w+|prior|previous|recommend\w*|correlat\w+|no )\b", name, re.IGNORECASE
    )


def _by_body(body: str) -> Scope | None:
    chest, other = _distinct(_CHEST_BODY, body), _distinct(_OTHER_ANATOMY, body)
    cross_section = _distinct(_CROSS_SECTION, body)
    if cross_section >= 3 and _SURELY_CROSS_SECTION.search(body):
        return "not_radiograph" if chest > other else "not_chest"
    if chest == 0 and len(_words(_OTHER_ANATOMY, body) - _SEEN_ON_CHEST_FILMS) >= 2:
        return "not_chest"
    return "not_chest" if other >= 5 and other >= 4 * chest else None


def _distinct(pattern: re.Pattern[str], text: str) -> int:
    return len(_words(pattern, text))


def _words(pattern: re.Pattern[str], text: str) -> set[str]:
    return {match.lower() for match in pattern.findall(text)}
