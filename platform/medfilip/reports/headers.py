"""Names of sections as hospitals write them, and what else stands at the start of a line.

A heading is one of a known list, a title that consists of view words only ("PORTABLE AP CHEST RADIOGRAPH"), or an
administrative label. Labels of organs ("LUNGS:", "Left lung:") are no headings: what follows belongs to the findings.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

Heading = Literal[
    "indication",
    "technique",
    "comparison",
    "findings",
    "impression",
    "addendum",
    "wet_read",
    "title",
    "organ",
    "other",
    "admin",
    "unknown",
]
"""What a label announces. ``title``, ``organ``, ``wet_read``, ``admin`` and ``unknown`` become sections by context."""

_NAMES: dict[Heading, tuple[str, ...]] = {
    "indication": ("indication", "indications", "clinical indication", "clinical indications", "history",
                   "clinical history", "clinical data", "clinical information", "clinical details", "clinical notes",
                   "clinical question", "clinical statement", "clinical impression", "clinical diagnosis",
                   "clinical", "reason", "reason for exam", "reason for examination", "reason for this examination",
                   "reason for study", "reason for the study", "reason for visit", "reason for request",
                   "medical condition", "underlying medical condition", "relevant clinical information",
                   "presenting complaint", "chief complaint", "complaint", "complaints", "symptoms", "hx",
                   "ordering diagnosis", "admitting diagnosis", "patient history", "brief history", "c/o"),
    "technique": ("technique", "techniques", "procedure", "procedure description", "examination", "examinations",
                  "exam", "exams", "exam type", "exam description", "type of exam", "type of examination", "views",
                  "view", "views obtained", "number of views", "study", "study type", "study description",
                  "projection", "projections", "protocol", "investigation", "modality", "procedure comments"),
    "comparison": ("comparison", "comparisons", "comparison study", "comparison studies", "comparison exam",
                   "comparison films", "prior study", "prior studies", "prior exam", "prior exams",
                   "prior examination", "priors", "previous study", "previous examination", "previous studies",
                   "compared to", "compared with", "correlation"),
    "findings": ("findings", "finding", "report", "description", "observations", "observation", "chest",
                 "chest findings", "radiographic findings", "radiological findings", "x-ray findings", "narrative",
                 "body of report", "result", "results"),
    "impression": ("impression", "impressions", "imp", "final impression", "conclusion", "conclusions", "summary",
                   "opinion", "interpretation", "diagnosis", "final diagnosis", "radiological diagnosis",
                   "radiological impression", "assessment", "comment", "comments"),
    "addendum": ("addendum", "addenda"),
    "wet_read": ("wet read", "wet reading", "preliminary read", "preliminary reading", "preliminary impression",
                 "preliminary interpretation"),
    "other": ("notification", "notifications", "communication", "critical result", "critical results",
              "recommendation", "recommendations", "advice", "advised", "suggestion", "suggestions", "note", "notes",
              "disclaimer", "limitation", "limitations", "dose", "radiation dose", "contrast", "complications"),
    "admin": ("final report", "preliminary report", "radiology report", "final", "corrected report",
              "amended report", "revised report", "x-ray report", "imaging report", "accession", "accession number",
              "patient", "patient name", "patient id", "name", "mrn", "dob", "date of birth", "age", "age/sex", "sex",
              "gender", "date", "time", "exam date", "date of exam", "date of examination", "study date",
              "report date", "ordering physician", "ordering provider", "referring physician", "referring doctor",
              "ref by", "ref. by", "referred by", "requested by", "physician", "location", "ward", "department",
              "radiologist", "attending", "attending radiologist", "resident", "consultant", "consultant radiologist",
              "dictated by", "dictated", "transcribed by", "transcriptionist", "signed", "signed by", "reported by",
              "verified by", "approved by", "interpreted by", "read by", "electronically signed by", "workstation",
              "status", "cc", "d", "t", "dd", "dt", "job", "job number", "signature", "end of impression",
              "end of report", "hospital", "facility", "site"),
}  # fmt: skip
_EXACT = {name: heading for heading, names in _NAMES.items() for name in names}

STRONG = frozenset(
    ("findings", "impression", "conclusion", "indication", "technique", "comparison", "opinion", "addendum", "wet read",
     "findings and impression", "findings/impression", "clinical history", "clinical information", "history")
)  # fmt: skip
"""Headings that are believed inside a line too, and without a colon."""

_ORGAN = re.compile(
    r"\b(?:lungs?|heart|cardiac|cardiomediastinal|mediastin\w+|pleurae?|pleural|hil(?:a|ar|um)|diaphragms?|"
    r"hemidiaphragms?|bones?|bony|osseous|skeletal|musculoskeletal|soft tissues?|ribs?|spine|airways?|trachea\w*|aorta|"
    r"lines?|tubes?|catheters?|devices?|hardware|vasculature|vessels|vascular|abdomen|abdominal|thoracic cage|"
    r"chest wall|costophrenic|cp angles?|silhouette|lobes?|zones?|apices|bases|parenchyma|neck|pneumothorax"
    r"|effusions?)\b"
)
_VIEW_WORDS_LIST = """
a an and at of the in on or with for from to am pm a.m p.m hours hrs hour view views pa ap lat lateral laterals
portable mobile single frontal upright erect supine sitting semi-erect semi-upright semierect semiupright semi one
two three four 1v 2v xray xrays x-ray x-rays x ray radiograph radiographs radiograph(s) radiography film films plain
chest cxr thorax bedside routine standard digital decubitus oblique left right posteroanterior postero-anterior
anteroposterior antero-posterior projection projections examination exam study xr cr dx limited adult series
inspiratory expiratory inspiration expiration only date time single-view
"""
_VIEW_WORDS = frozenset(_VIEW_WORDS_LIST.split())
_CHEST_WORDS = frozenset(("chest", "cxr", "thorax"))
_WORD = re.compile(r"[a-z0-9][a-z0-9.()'-]*")
_PLACEHOLDER = re.compile(r"x{3,}(?:-x{3,})*|_{2,}|\[\*\*.*?\*\*\]|\d[\d:./-]*")
_SUFFIX = re.compile(r"\s*(?:\(s\)|#?\s*\d+)$")


@lru_cache(maxsize=4096)
def read_label(label: str) -> Heading | None:
    """Say what a label before a colon announces; ``None`` if it is a part of a sentence.

    Labels in capitals that nobody has listed are ``unknown``; in other case they are not believed to be headings.
    """
    plain = " ".join(label.lower().split())
    known = exact_heading(plain)
    if known is not None:
        return known
    if plain.startswith("addendum"):
        return "addendum"
    if is_view_title(plain):
        return "title"
    short = len(plain.split()) <= 5
    if short and _ORGAN.search(plain):
        return "organ"
    return "unknown" if label.isupper() and len(label) > 2 and len(plain.split()) <= 8 else None


def exact_heading(plain: str) -> Heading | None:
    """Look up a label in lower case, also one that joins two known ones ("findings and impression")."""
    plain = _SUFFIX.sub("", plain)
    if plain in _EXACT:
        return _EXACT[plain]
    parts = re.split(r"\s*(?:/|&|,|\band\b)\s*", plain)
    found = [_EXACT.get(_SUFFIX.sub("", part)) for part in parts]
    if len(parts) < 2 or None in found:
        return None
    return next((name for name in ("findings", "impression", *found) if name in found), None)


def is_view_title(plain: str) -> bool:
    """Whether a line in lower case names the examination and nothing else."""
    words = _WORD.findall(_PLACEHOLDER.sub(" ", plain))
    words = [word.strip(".()'-") for word in words]
    return bool(words) and not _CHEST_WORDS.isdisjoint(words) and all(word in _VIEW_WORDS for word in words if word)
