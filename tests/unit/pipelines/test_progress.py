"""What a job prints before and while it runs: short lines, honest rates, fit for a terminal of 100 columns."""

from __future__ import annotations

import io
import threading

from rich.console import Console

from pipelines.forecast import Forecast, forecast_table
from pipelines.progress import ProgressLine, ProgressPrinter, duration


def test_durations_read_like_speech() -> None:
    assert [duration(s) for s in (0.4, 89, 600, 5400, 90_000)] == ["0 s", "89 s", "10 min", "1.5 h", "25.0 h"]


def test_work_of_an_earlier_attempt_has_no_speed() -> None:
    line = ProgressLine("vllm", "sentences", 1000, first=500, started=0.0)
    assert "left" not in line.text(500, now=10.0)
    assert line.text(600, now=10.0).endswith("600 of 1,000 sentences   60 %  10/s  40 s left")
    assert "left" not in line.text(1000, now=10.0)


def test_lines_come_while_the_stage_runs_and_a_failing_count_is_harmless() -> None:
    out, seen = io.StringIO(), threading.Event()

    def count() -> int:
        if out.getvalue():
            seen.set()
            raise OSError
        return 5

    printer = ProgressPrinter(Console(file=out, width=100), every_s=0.01)
    with printer.stage("lexicon", "sentences", 10, count):
        assert seen.wait(10)
    assert "5 of 10 sentences" in out.getvalue()


def test_the_forecast_fits_a_hundred_columns() -> None:
    out = io.StringIO()
    wide = Forecast("lexicon", 10_000_000, 9_999_999, 9_999_999, 9_999_999_999, 999_999_999, 1e6, 1234.5)
    Console(file=out, width=100).print(forecast_table([wide, Forecast("auto", 1, 2, 3)], "title"))
    text = out.getvalue()
    assert max(map(len, text.splitlines())) <= 100
    assert "~277.8 h" in text and "9,999,999,999" in text and "~1234.50" in text and "–" in text and "…" not in text
