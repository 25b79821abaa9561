"""The summary of a run, as it is read in a terminal of 100 columns."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from medfilip.storage.manifest import DatasetEntry, Manifest, Shard
from pipelines.console import print_outcome
from pipelines.job import Outcome

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def shown(capsys: pytest.CaptureFixture[str], **content: object) -> list[str]:
    manifest = Manifest.model_validate(
        {
            "job": "extract", "run_id": "r", "config_fingerprint": "f", "code_version": "1", "config": {},
            "started_at": NOW, "finished_at": NOW, **content,
        }
    )  # fmt: skip
    print_outcome("extract", Outcome("/runs/r", manifest, already_finished=False))
    return [" ".join(line.strip("│ ").split()) for line in capsys.readouterr().out.splitlines()]


def test_reasons_of_one_thing_are_one_row_with_the_most_frequent_first(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {"reports": 9, "ungrounded_pattern": 2, "model_findings": 1_200, "ungrounded_site": 31}
    lines = shown(capsys, counts=counts, rejected={"reply_empty": 3})
    assert lines[1:5] == ["reports 9", "ungrounded 31 × site, 2 × pattern", "model findings 1,200",
                          "rejected 3 × reply_empty"]  # fmt: skip


def test_one_shard_is_no_shards(capsys: pytest.CaptureFixture[str]) -> None:
    shards = tuple(Shard(path=f"a/{number}", rows=2, bytes=1, sha256="0") for number in range(2))
    entries = {
        name: DatasetEntry(schema_version=1, shards=shards[:number], rows=2 * number)
        for number, name in enumerate("ab", start=1)
    }
    assert shown(capsys, datasets=entries)[1:3] == ["a 2 rows in 1 shard", "b 4 rows in 2 shards"]
