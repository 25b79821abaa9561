"""Sections of a report as spans of its text.

Reports come with headings in capitals or mixed case, on lines of their own or inside a line, with or without a colon,
or without any. Three rules keep text from vanishing or from ending in the wrong place:

- Every character outside headings belongs to a section; what no heading claims is ``other``.
- Indication, technique and comparison end where the examination itself is described, even if no heading says so:
  "COMPARISON: ___." is often followed by a paragraph without a heading that holds the findings.
- A report in which no heading names findings or impression keeps both in what is left, so that it is never empty.

A wet read is the preliminary reading of a report: it counts only where no final reading follows. Signatures and
dictation lines are ``other``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from medfilip.reports.headers import STRONG, Heading, exact_heading, is_view_title, read_label

SECTION_NAMES = ("indication", "technique", "comparison", "findings", "impression", "addendum", "other")

BODY_SECTIONS = frozenset({"findings", "impression", "addendum"})
"""Sections whose statements are about this examination; the others never yield findings."""

_FRONT = frozenset({"indication", "technique", "comparison"})
_MAX_LABEL = 80
_DECORATION = " \t\r*#_>|"
_SENTENCE_END = re.compile(r"[.!?;\])]\s+(?=[^.!?;\])]*$)|\s{3,}(?=\S[^\n]*$)")
_CAPITAL_TAIL = re.compile(r"(?:^|(?<=[.\s]))([A-Z]+)\s*$")
_STRONG_START = re.compile(
    # "IMPRESSION 1. …", "IMPRESSION No acute …", "Impression - …": a heading that the colon was forgotten after.
    r"^[ \t]*(?P<label>(?P<caps>FINDINGS|IMPRESSION|CONCLUSION|INDICATION|TECHNIQUE|COMPARISON|OPINION)"
    r"|Findings|Impression|Conclusion|Indication|Technique|Comparison|Opinion)"
    r"(?:[ \t]+[-–—][ \t]+|(?(caps)[ \t]*[-–—]+[ \t]*(?=\S)|(?!))|(?(caps)[ \t]+(?=\d{1,2}[.)]\s|[A-Z][a-z])|(?!)))",
    re.MULTILINE,
)
_SIGNATURE = re.compile(
    r"(?:^[ \t]*|(?<=[.!?][ \n]))(?:"
    r"(?:electronically (?:signed|verified|approved)|(?:dictated|transcribed|reported|signed|typed|approved|verified"
    r"|interpreted|reviewed|read|finalized|finalised) by\b|this (?:report|document) (?:was|has been) "
    r"(?:electronically|dictated|signed"
    r"|reviewed and)|i(?:, [^.\n]{1,60},)? (?:have )?(?:personally )?reviewed the|the attending radiologist|thanks? "
    r"(?:you )?for "
    r"(?:the |your |this )?(?:kind )?referral|\*+ ?end of|end of (?:report|impression))"
    r"|dr\.? [^\n]{2,60}(?:radio|\bm\.?d\b|dmrd|frcr)[^\n]*$"
    r"|(?:consultant|attending|resident|reporting) radiologist\b[^\n]*$)",
    re.MULTILINE | re.IGNORECASE,
)
_BODY_WORDS = re.compile(
    r"\b(?:lungs?|heart|cardiac|cardio\w*|mediastin\w+|pleura\w*|pneumothora\w+|effusions?|consolidat\w+|opaci\w+"
    r"|clear|"
    r"unremarkable|silhouette|hil(?:a|ar|um)|costophrenic|diaphragm\w*|hemidiaphragm\w*|atelecta\w+|pulmonary"
    r"|infiltrat\w+|edema|oedema|"
    r"airspace|normal|seen|noted|identified|vasculature|osseous|bony|bones|catheter|tube|tip|unchanged|contours?)\b",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    r"\?|^\W*(?:history|hx|known|year|evaluate|eval|assess|rule out|r/o|please|status post|s/p|concern|patient|\d+)\b"
    r"|\byear[- ]old\b|\by/?o\b",
    re.IGNORECASE,
)
_PIECE = re.compile(r"\n[ \t\r]*\n\s*|(?<=[.!?_])[ \t\r]*\n\s*(?=[A-Z])")
_SENTENCE = re.compile(r"(?<=[.!?_])\s+(?=[A-Z])")


@dataclass(frozen=True)
class Section:
    """A section: half-open span ``[start, end)`` of the report text, without header and outer white space."""

    name: str
    start: int
    end: int


class _Header(NamedTuple):
    """A heading: where its label starts, where its content starts, and what it announces."""

    start: int
    content: int
    kind: Heading


class _Span(NamedTuple):
    kind: str
    start: int
    end: int


def split_sections(text: str) -> list[Section]:
    """Split a report into sections in the order of the text; parts without content are left out."""
    spans = _spans(text)
    if any(span.kind == "findings" for span in spans):
        spans = [part for span in spans for part in _release_body(text, span, ("signature", "admin"))]
    else:
        spans = [part for span in spans for part in _release_body(text, span, ("signature", "admin", "other", *_FRONT))]
    decided = _decide(text, spans)
    if not any(span.kind in BODY_SECTIONS for span in decided):
        decided = [part for span in decided for part in _release_rest(text, span)]
    return [section for name, start, end in decided for section in _trimmed(text, name, start, end)]


def join_sections(parts: Mapping[str, str | None]) -> tuple[str, list[Section]]:
    """Write a report that arrives in parts as one text with headers, and return it with its sections.

    A part may hold headings of its own, and findings typed into the field for the comparison are found there too.
    """
    bodies = [(name.upper(), (part or "").strip()) for name, part in parts.items()]
    text = "".join(f"{name}: {body}\n" for name, body in bodies if body)
    return text, split_sections(text)


def body_evidence(text: str) -> int:
    """Count the distinct words of a text that describe a chest rather than a question about one."""
    return len({word.lower() for word in _BODY_WORDS.findall(text)})


def _spans(text: str) -> list[_Span]:
    """Cut the text at headings; kinds are those of `headers`, organ labels resolved by where they stand."""
    spans: list[_Span] = []
    kind, begin = "other", 0
    for header in _find_headers(text):
        if header.start < begin:
            continue
        found: str = header.kind
        inside = kind in BODY_SECTIONS or kind in ("title", "wet_read")
        if found in ("organ", "unknown") and (inside or (found == "unknown" and kind == "signature")):
            continue
        if found == "organ":
            # "LUNGS: …" after the indication opens the findings, and the label stays a part of them.
            found = "findings"
        spans.append(_Span(kind, begin, header.start))
        kind, begin = found, header.start if header.kind == "organ" else header.content
    spans.append(_Span(kind, begin, len(text)))
    return [span for span in spans if not text[span.start : span.end].isspace() and span.start < span.end]


def _find_headers(text: str) -> list[_Header]:
    found = [*_labels_before_colons(text), *_labels_on_lines(text)]
    found += [_Header(match.start(), match.start(), "signature") for match in _SIGNATURE.finditer(text)]  # type: ignore[arg-type]
    found += [
        _Header(match.start("label"), match.end(), exact_heading(match["label"].lower()) or "unknown")
        for match in _STRONG_START.finditer(text)
    ]
    return sorted(found)


def _labels_before_colons(text: str) -> list[_Header]:
    found: list[_Header] = []
    mixed = not text.isupper()
    at = text.find(":")
    while at >= 0:
        header = _label_before(text, at, mixed=mixed)
        if header is not None:
            found.append(header)
        at = text.find(":", at + 1)
    return found


def _label_before(text: str, at: int, *, mixed: bool) -> _Header | None:
    """Read the label before the colon at ``at``: from the start of its line, or from the end of a sentence."""
    line = text.rfind("\n", 0, at) + 1
    begin = max(line, text.rfind(":", line, at) + 1, at - _MAX_LABEL)
    chunk = text[begin:at]
    label = chunk.strip(_DECORATION)
    if not label or (chunk[-1].isdigit() and text[at + 1 : at + 2].isdigit()):
        return None
    content = at + 1
    while text[content : content + 1] == "*":
        content += 1
    ends = _SENTENCE_END.search(chunk)
    if begin == line and (not ends or exact_heading(" ".join(label.lower().split()))):
        kind = read_label(label)
        if kind is not None:
            return _Header(begin, content, kind)
    tail = chunk[ends.end() :] if ends else chunk if begin > line else ""
    name = " ".join(tail.strip(_DECORATION).split())
    kind = exact_heading(name.lower()) if name and name[0].isupper() else None
    if kind is not None and kind != "admin" and (name.isupper() or name.lower() in STRONG):
        return _Header(begin + len(chunk) - len(tail.lstrip(_DECORATION)), content, kind)
    capitals = _CAPITAL_TAIL.search(chunk) if mixed else None
    if capitals and capitals[1].lower() in STRONG:
        return _Header(begin + capitals.start(1), content, exact_heading(capitals[1].lower()) or "unknown")
    return None


def _labels_on_lines(text: str) -> list[_Header]:
    """Find headings that fill a line and have no colon."""
    found: list[_Header] = []
    begin, technique = 0, False
    for line in text.split("\n"):
        label = line.strip(_DECORATION + "-–—=")
        if label and len(line) <= _MAX_LABEL and not label.endswith((".", ":")):
            plain = " ".join(label.lower().split())
            kind = exact_heading(plain)
            if kind is not None and (plain in STRONG or label.isupper() or (label.istitle() and len(plain) > 4)):
                found.append(_Header(begin, begin + len(line), kind))
            elif not technique and is_view_title(plain):
                found.append(_Header(begin, begin + len(line), "title"))
        if label:
            # A view named below "TECHNIQUE:" is its content.
            technique = label.endswith(":") and read_label(label[:-1]) in _FRONT
        begin += len(line) + 1
    return found


def _release_body(text: str, span: _Span, kinds: tuple[str, ...]) -> list[_Span]:
    """Cut a span where, past its own content, the examination is described."""
    if span.kind not in kinds:
        return [span]
    content = text[span.start : span.end]
    starts = [match.end() for match in _PIECE.finditer(content)]
    if span.kind in ("technique", "comparison"):
        starts = sorted({*starts, *(match.end() for match in _SENTENCE.finditer(content))})
    if span.kind == "other":
        starts = [0, *starts]
    for number, start in enumerate(starts):
        piece = content[start : starts[number + 1] if number + 1 < len(starts) else len(content)]
        if body_evidence(piece) < 2 or (span.kind in ("indication", "other") and _QUESTION.search(piece)):
            continue
        return [span._replace(end=span.start + start), _Span("findings", span.start + start, span.end)]
    return [span]


def _release_rest(text: str, span: _Span) -> list[_Span]:
    """Cut a front section of a report without any body after its first line: "INDICATION: cough⏎No pneumonia."."""
    begin = text.find("\n", span.start, span.end)
    if span.kind not in _FRONT or begin < 0 or _QUESTION.search(text[begin : span.end]):
        return [span]
    return [span._replace(end=begin), _Span("findings", begin, span.end)]


def _decide(text: str, spans: list[_Span]) -> list[_Span]:
    """Turn kinds into names of sections, now that it is known which of them the report has."""
    kinds = {span.kind for span in spans}
    final = bool(kinds & {"findings", "impression"})
    titled = [span for span in spans if span.kind == "title"]
    spans = [span._replace(kind="findings") if span in titled and not _is_front(text, span) else span for span in spans]
    final = final or any(span.kind == "findings" for span in spans)
    names = {
        "wet_read": "other" if final else "impression",
        "admin": "other",
        "signature": "other",
        "title": "technique",
    }
    if not final and not kinds & {"wet_read", "addendum"}:
        # Nothing names the body: it is in what no heading claims, or after a heading such as "EXAM:".
        free = [span for span in spans if span.kind in ("other", "unknown", "title")]
        names |= {"other": "findings", "unknown": "findings", "title": "findings"}
        if not free or not any(body_evidence(text[span.start : span.end]) for span in free):
            names["technique"] = "findings"
            if not free and "technique" not in kinds:
                names["admin"] = "findings"
    names["unknown"] = names.get("unknown", "other")
    return [span._replace(kind=names.get(span.kind, span.kind)) for span in spans]


def _is_front(text: str, span: _Span) -> bool:
    """Whether what follows a title only goes on about the examination, not about the patient."""
    return body_evidence(text[span.start : span.end]) == 0


def _trimmed(text: str, name: str, start: int, end: int) -> list[Section]:
    body = text[start:end]
    stripped = body.strip()
    if not any(map(str.isalnum, stripped)) and name not in _FRONT:
        return []
    offset = start + body.index(stripped)
    return [Section(name, offset, offset + len(stripped))]
