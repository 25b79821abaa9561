"""Sections of a report as spans of its text.

Reports come with headers in capitals, in mixed case, on lines of their own or inline, or without any. A report
without headers is all findings: text must never vanish because a header is missing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SECTION_NAMES = ("indication", "technique", "comparison", "findings", "impression", "other")

BODY_SECTIONS = frozenset({"findings", "impression"})
"""Sections whose statements are about this examination; the others never yield findings."""

_HEADERS = {
    "indication": ("indication", "indications", "clinical indication", "history", "clinical history", "clinical data",
                   "clinical information", "reason for exam", "reason for examination", "reason for study"),
    "technique": ("technique", "procedure", "examination", "exam", "views", "study"),
    "comparison": ("comparison", "comparisons", "comparison study", "prior study", "prior studies"),
    "findings": ("findings", "finding", "report", "description", "observations", "chest"),
    "impression": ("impression", "impressions", "conclusion", "conclusions", "summary", "opinion", "interpretation",
                   "wet read", "addendum"),
}  # fmt: skip

_SECTION_OF = {header: name for name, headers in _HEADERS.items() for header in headers}
_ALTERNATIVES = "|".join(sorted((re.escape(header) for header in _SECTION_OF), key=len, reverse=True))
_HEADER = re.compile(
    # At the start of a line in any case, or inside a line only in capitals: "…clear. IMPRESSION: …" is a header,
    # "the chest: …" in running text is not.
    rf"(?:^[ \t]*(?P<line>(?i:{_ALTERNATIVES}))[ \t]*:)|(?:(?<=[.\s])(?P<inline>{_ALTERNATIVES.upper()})[ \t]*:)",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Section:
    """A section: half-open span ``[start, end)`` of the report text, without header and outer white space."""

    name: str
    start: int
    end: int


def split_sections(text: str) -> list[Section]:
    """Split a report into sections in the order of the text; parts without content are left out."""
    headers = list(_HEADER.finditer(text))
    if not headers:
        return _trimmed(text, "findings", 0, len(text))
    sections = _trimmed(text, "other", 0, headers[0].start())
    for header, following in zip(headers, [*headers[1:], None], strict=True):
        name = _SECTION_OF[(header["line"] or header["inline"]).lower()]
        sections += _trimmed(text, name, header.end(), following.start() if following else len(text))
    if not any(section.name in BODY_SECTIONS for section in sections):
        # Only a heading such as "EXAM:" was recognised: what is neither history nor comparison holds the findings.
        sections = [
            Section("findings", section.start, section.end) if section.name in ("other", "technique") else section
            for section in sections
        ]
    return sections


def join_sections(parts: dict[str, str | None]) -> tuple[str, list[Section]]:
    """Write a report that arrives in parts as one text with headers, and return it with its sections."""
    text, sections = "", []
    for name, part in parts.items():
        body = (part or "").strip()
        if not body:
            continue
        text += f"{name.upper()}: "
        sections.append(Section(name, len(text), len(text) + len(body)))
        text += f"{body}\n"
    return text, sections


def _trimmed(text: str, name: str, start: int, end: int) -> list[Section]:
    body = text[start:end]
    stripped = body.strip()
    if not stripped:
        return []
    offset = start + body.index(stripped)
    return [Section(name, offset, offset + len(stripped))]
