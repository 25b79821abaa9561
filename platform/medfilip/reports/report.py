"""A report as its corpus holds it, and the coded outcomes that a single report can have.

What concerns several reports at once (duplicates, corrections, addenda) is decided over the whole corpus by ingest;
here each report only says what it claims to be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from medfilip.core.errors import ErrorCode
from medfilip.reports.encoding import Decoded
from medfilip.reports.language import foreign_language
from medfilip.reports.scope import out_of_scope
from medfilip.reports.sections import BODY_SECTIONS, Section, split_sections

MAX_REPORT_CHARACTERS = 100_000

Role = Literal["report", "preliminary", "correction", "addendum"]
"""What a report says it is: an ordinary or final one, a preliminary one, one that replaces another, or an addition."""

Doubt = Literal["language_unsupported", "not_chest", "not_radiograph"]

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""How corpora call their splits."""

_PLACEHOLDERS = re.compile(
    r"\b[Xx]{3,}(?:-[Xx]{3,})*\b|_{2,}|\*{3,}|\[\*\*.*?\*\*\]|\[(?:redacted|removed|deleted)\]|<[A-Za-z_ ]{1,20}>"
)
_BOILERPLATE = re.compile(
    r"\b(?:(?:final|preliminary) report|report to follow|(?:please )?see (?:the )?(?:(?:full|separate|above|below"
    r"|attached|accompanying|dictated|other|ct|"
    r"findings|report|impression)\b[ ,.]*)+|as (?:above|below|dictated)|dictated|dictation|transcribed|pending|no "
    r"report(?: available)?|not (?:available|reported|read|"
    r"dictated)|test report|n/?a|none|null|nil report|images? (?:only|reviewed|stored|archived)|duplicate|cancell?ed"
    r"|exam(?:ination)? (?:cancell?ed|not "
    r"performed)|end of (?:report|impression)|report|impression|findings|electronically signed by.*)\b", re.IGNORECASE,
)  # fmt: skip
_OPENING = 400
_CORRECTION = re.compile(
    r"^\W*(?:(?:this is an? )?(?:corrected|amended|revised|updated) (?:final )?(?:report|copy|version|result)\b"
    r"|(?:correction|amendment|erratum|revision)\b"
    r"\s*(?:[:.-]|\n|to\b))|\b(?:supersedes|replaces) (?:the |all |any )?(?:previous|prior|earlier|preliminary"
    r"|original|first)\b",
    re.IGNORECASE | re.MULTILINE,
)
_PRELIMINARY = re.compile(
    r"^\W*(?:this is a )?(?:preliminary|provisional|interim) (?:report|read\w*|result|interpretation)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class RawReport:
    """A report as its corpus holds it: identifiers not yet pseudonymised.

    Attributes
    ----------
    patient_id
        ``None`` if the corpus does not say which patient a study belongs to.
    public_ids
        Whether the corpus is public and de-identified, so that report ids may stay readable.
    role
        What the report says it is.
    issued
        When it was issued, in seconds of any clock, where the corpus says so; orders resends of one report.
    decoded
        How its bytes became text.
    """

    report_id: str
    study_id: str
    patient_id: str | None
    text: str
    sections: list[Section]
    source: str
    split: str | None = None
    public_ids: bool = False
    role: Role = "report"
    issued: float | None = None
    decoded: str = "utf-8"


@dataclass(frozen=True)
class RejectedReport:
    """A report that cannot be used, with a reason and without its text."""

    report_id: str
    code: ErrorCode
    message: str


@dataclass(frozen=True)
class Source:
    """What a corpus says about a report beside its text."""

    report_id: str
    study_id: str
    patient_id: str | None
    corpus: str
    split: str | None = None
    title: str | None = None
    issued: float | None = None
    public_ids: bool = False


def make_report(
    source: Source, decoded: Decoded | None, *, accept: frozenset[str] = frozenset()
) -> RawReport | RejectedReport:
    """Judge a report and cut it into sections.

    Parameters
    ----------
    source
        What the corpus says about it.
    decoded
        Its text; ``None`` if its bytes are none.
    accept
        Codes of `Doubt` that shall not refuse it.
    """

    def refuse(code: ErrorCode, message: str) -> RejectedReport:
        return RejectedReport(source.report_id, code, message)

    if decoded is None:
        return refuse(ErrorCode.REPORT_UNDECODABLE, "The bytes of the report are no text in any known encoding.")
    text = decoded.text
    if len(text) > MAX_REPORT_CHARACTERS:
        message = f"The report has {len(text)} characters; the limit is {MAX_REPORT_CHARACTERS}."
        return refuse(ErrorCode.REPORT_TOO_LONG, message)
    sections = split_sections(text)
    split = SPLIT_NAMES.get((source.split or "").strip().lower())
    fault = _fault(text, sections, source, accept)
    if fault is None and split is None and (source.split or "").strip():
        fault = ErrorCode.SPLIT_UNKNOWN, f"The split is none of {', '.join(SPLIT_NAMES)}."
    if fault is not None:
        return refuse(*fault)
    return RawReport(
        report_id=source.report_id,
        study_id=source.study_id,
        patient_id=source.patient_id,
        text=text,
        sections=sections,
        source=source.corpus,
        split=split,
        public_ids=source.public_ids,
        role=_role(text, sections),
        issued=source.issued,
        decoded=decoded.how,
    )


def _says_something(text: str, sections: list[Section]) -> bool:
    for section in sections:
        if section.name in BODY_SECTIONS:
            rest = _BOILERPLATE.sub(" ", _PLACEHOLDERS.sub(" ", text[section.start : section.end]))
            if sum(map(str.isalpha, rest)) >= 2:
                return True
    return False


def _fault(text: str, sections: list[Section], source: Source, accept: frozenset[str]) -> tuple[ErrorCode, str] | None:
    """Return why the text of a report cannot be used."""
    if not sections:
        return ErrorCode.REPORT_EMPTY, "The report has no text."
    if not _says_something(text, sections):
        return ErrorCode.REPORT_NO_CONTENT, "The report has no findings or impression, or only placeholders there."
    if ErrorCode.LANGUAGE_UNSUPPORTED not in accept:
        body = " ".join(text[one.start : one.end] for one in sections if one.name in BODY_SECTIONS)
        language = foreign_language(body)
        if language is not None:
            message = (
                f"The report seems to be written in {language.name} ({language.evidence} signs of it, "
                f"{language.english} English words); only English is read."
            )
            return ErrorCode.LANGUAGE_UNSUPPORTED, message
    scope = out_of_scope(text, sections, source.title)
    if scope is None or scope in accept:
        return None
    if scope == "not_chest":
        return ErrorCode.NOT_CHEST, "The report is about another part of the body than the chest."
    return ErrorCode.NOT_RADIOGRAPH, "The report is about the chest but not about a radiograph of it."


def _role(text: str, sections: list[Section]) -> Role:
    names = {section.name for section in sections} & BODY_SECTIONS
    if names == {"addendum"}:
        return "addendum"
    opening = text[:_OPENING]
    if _CORRECTION.search(opening):
        return "correction"
    return "preliminary" if _PRELIMINARY.search(opening) else "report"
