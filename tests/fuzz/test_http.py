"""Damaged images and forms over HTTP: a code, never a failure inside. ``python -m tests.fuzz.http`` sends thousands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.fuzz.http import endpoint, judge, make


@pytest.fixture(scope="module")
def client(tiny_checkpoint: Path) -> Iterator[TestClient]:
    with endpoint(tiny_checkpoint) as opened:
        yield opened


def test_whatever_is_sent_is_answered_by_the_contract(client: TestClient) -> None:
    found = Counter(judge(client, make(seed)) for seed in range(300))
    assert found["200 application/json"] > 10, "some of it is good"
    assert len(found) > 8, "and it is refused for many reasons"
