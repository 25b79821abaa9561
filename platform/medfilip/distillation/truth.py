"""Reports whose findings are known exactly → readings of their sentences: a phantom corpus as a teacher.

The truth of a corpus is complete: a sentence that no finding stands in states nothing.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from medfilip.distillation.dataset import Reading
from medfilip.distillation.given import phenomenon_of
from medfilip.extraction.engine import FindingRow
from medfilip.findings.finding import Finding
from medfilip.reports.sections import split_sections
from medfilip.reports.sentences import Sentence, normal_form, report_sentences

PHANTOM = "phantom"
"""Source of such readings."""


def readings_of_report(text: str, findings: Sequence[Finding], counts: Counter[str]) -> Iterator[Reading]:
    """Yield the sentences of a report with what they state.

    Parameters
    ----------
    text
        The report.
    findings
        All that it states, with evidence spans into ``text``.
    counts
        Takes ``truth_elsewhere``: sentences with a finding whose words stand in more than one sentence.
    """
    sentences = report_sentences(text, split_sections(text))
    starts = [sentence.start for sentence in sentences]
    stated: list[list[Finding]] = [[] for _ in sentences]
    for finding in findings:
        mention = next((span.start for span in finding.evidence if span.slot == "mention"), -1)
        at = bisect_right(starts, mention) - 1
        if at >= 0 and mention < sentences[at].end:
            stated[at].append(finding)
    for sentence, own in zip(sentences, stated, strict=True):
        rows = _rows_within(text, sentence, own)
        if rows is None:
            counts["truth_elsewhere"] += 1
            continue
        phenomenon = phenomenon_of(sentence.text)
        yield Reading(sentence.text, sentence.context, tuple(rows), PHANTOM, phenomenon)


def unequivocal(readings: Iterable[Reading], counts: Counter[str]) -> list[Reading]:
    """Return each sentence in its context once; one that means different things in different reports is left out.

    ``counts`` takes ``duplicate`` for the others of equal meaning, ``equivocal`` for all of unequal meaning.
    """
    found: dict[tuple[str, str], list[Reading]] = {}
    for reading in readings:
        found.setdefault((reading.text, reading.context or ""), []).append(reading)
    kept = []
    for same in found.values():
        if any(other.findings != same[0].findings for other in same[1:]):
            counts["equivocal"] += len(same)
            continue
        counts["duplicate"] += len(same) - 1
        kept.append(same[0])
    return kept


def _rows_within(text: str, sentence: Sentence, findings: Sequence[Finding]) -> list[FindingRow] | None:
    """Return findings with spans into the normal form of their sentence; ``None`` if words stand elsewhere."""
    if not findings:
        return []
    _, offsets = normal_form(text[sentence.start : sentence.end])
    rows = []
    for finding in findings:
        row, moved = finding.to_row(), []
        for span in finding.evidence:
            start = bisect_left(offsets, span.start - sentence.start)
            end = bisect_left(offsets, span.end - sentence.start)
            if span.start < sentence.start or span.end > sentence.end or start >= end:
                return None
            moved.append({"slot": span.slot, "start": start, "end": end})
        rows.append({**row, "evidence": moved})
    return rows
