"""Outcomes of single reports: each has a code, a message without text, and nothing becomes empty in silence."""

from __future__ import annotations

import pytest

from medfilip.core.errors import ErrorCode
from medfilip.reports.encoding import clean_text
from medfilip.reports.report import MAX_REPORT_CHARACTERS, RawReport, RejectedReport, Source, make_report

SOURCE = Source("r", "s", "p", "table")


def judge(text: str, **options: frozenset[str]) -> RawReport | RejectedReport:
    return make_report(SOURCE, clean_text(text), **options)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", ErrorCode.REPORT_EMPTY),
        ("FINDINGS:\nIMPRESSION:", ErrorCode.REPORT_EMPTY),
        ("INDICATION: Cough.", ErrorCode.REPORT_NO_CONTENT),
        ("FINDINGS: XXXX.\nIMPRESSION: ___ XXXX.", ErrorCode.REPORT_NO_CONTENT),
        ("Please see the dictated report.", ErrorCode.REPORT_NO_CONTENT),
        ("IMPRESSION: None.", ErrorCode.REPORT_NO_CONTENT),
        ("secret " * (MAX_REPORT_CHARACTERS // 6), ErrorCode.REPORT_TOO_LONG),
        ("secret " * 150_000, ErrorCode.REPORT_TOO_LONG),
        ("Kein Infiltrat. Herz nicht vergrößert, secret.", ErrorCode.LANGUAGE_UNSUPPORTED),
        ("KNEE, TWO VIEWS\nNo fracture, secret.", ErrorCode.NOT_CHEST),
        ("EXAM: CT CHEST\nFINDINGS: Clear lungs, secret.", ErrorCode.NOT_RADIOGRAPH),
        ("\x01\x02\x03\x04\x05 secret", ErrorCode.REPORT_UNDECODABLE),
    ],
)
def test_every_refusal_has_a_code_and_no_text(text: str, code: ErrorCode) -> None:
    report = judge(text)
    assert isinstance(report, RejectedReport) and report.code is code
    assert "secret" not in report.message and report.message.endswith(".")


@pytest.mark.parametrize("text", ["Normal chest.", "FINDINGS: XXXX effusion ___ left.", "NAD", "1. ___ clear"])
def test_placeholders_are_kept_and_harmless(text: str) -> None:
    report = judge(text)
    assert isinstance(report, RawReport) and report.text == text


def test_a_doubt_can_be_accepted() -> None:
    assert isinstance(judge("KNEE, TWO VIEWS\nNo fracture.", accept=frozenset({"not_chest"})), RawReport)


@pytest.mark.parametrize(
    ("text", "role"),
    [
        ("FINDINGS: Clear.", "report"),
        ("ADDENDUM: There is a nodule.", "addendum"),
        ("ADDENDUM: There is a nodule.\nFINDINGS: Clear.", "report"),
        ("CORRECTED REPORT\nFINDINGS: Clear.", "correction"),
        ("FINDINGS: Clear. This report supersedes the previous report of today.", "correction"),
        ("Correction to the report: the effusion is on the right.", "correction"),
        ("PRELIMINARY REPORT\nFINDINGS: Clear.", "preliminary"),
        ("FINDINGS: Corrected scoliosis with rods.", "report"),
    ],
)
def test_a_report_says_what_it_is(text: str, role: str) -> None:
    report = judge(text)
    assert isinstance(report, RawReport) and report.role == role
