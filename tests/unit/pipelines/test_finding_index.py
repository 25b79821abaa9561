"""Findings brought to images: each shard read once, whatever lies where, and nothing lost or doubled."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.storage.location import Location
from medfilip.storage.manifest import DatasetEntry, Manifest, Shard
from medfilip.storage.schemas import IMAGES, RESOLVED_FINDINGS, DatasetSchema
from medfilip.storage.shards import write_shard
from pipelines import finding_index
from pipelines.finding_index import group_count, index_findings


@pytest.fixture(autouse=True)
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    def map_parts(staging: Location, phase: str, function: Any, parts: list[Any], **_: Any) -> list[dict[str, Any]]:
        return [function(part) for part in parts]

    monkeypatch.setattr(finding_index, "map_parts", map_parts)


def dataset(folder: Path, schema: DatasetSchema, shards: list[list[dict[str, object]]]) -> tuple[Location, Manifest]:
    run = Location.parse(folder)
    written = tuple(
        write_shard(run, f"{schema.name}/part-{number:05d}.parquet", schema, schema.from_rows(rows))
        for number, rows in enumerate(shards)
    )
    entry = DatasetEntry(schema_version=schema.version, rows=sum(shard.rows for shard in written), shards=written)
    now = datetime.now(UTC)
    return run, Manifest(
        job="test", run_id="r", config_fingerprint="f", code_version="0", config={}, datasets={schema.name: entry},
        started_at=now, finished_at=now,
    )  # fmt: skip


def corpus(
    tmp_path: Path, image_shards: int, finding_shards: int, studies: int = 60
) -> tuple[Any, Any, dict[str, Any]]:
    rng = np.random.default_rng(image_shards)
    images: list[list[dict[str, object]]] = [[] for _ in range(image_shards)]
    findings: list[list[dict[str, object]]] = [[] for _ in range(finding_shards)]
    expected: dict[str, list[int]] = {}
    for number in range(studies):
        study = f"s{number}"
        # Some studies have two images in different shards, some have none.
        for shard in rng.choice(image_shards, min(image_shards, number % 3), replace=False):
            images[shard].append({"image_id": f"i{number}-{shard}", "study_id": study, "patient_id": "p"})
        for finding in range(number % 4):
            shard = int(rng.integers(finding_shards))
            row = {"finding_id": 10 * number + finding, "study_id": study, "report_id": "r", "category": "nodule"}
            findings[shard].append({**row, "certainty": "present"})
    for rows in findings:
        for row in rows:
            expected.setdefault(str(row["study_id"]), []).append(int(str(row["finding_id"])))
    return (
        dataset(tmp_path / "images", IMAGES, images),
        dataset(tmp_path / "findings", RESOLVED_FINDINGS, findings),
        expected,
    )


@pytest.mark.parametrize(
    ("image_shards", "finding_shards", "groups"), [(1, 1, None), (5, 3, None), (7, 4, 3), (4, 1, 1)]
)
def test_every_image_shard_finds_the_findings_of_its_studies(
    tmp_path: Path, image_shards: int, finding_shards: int, groups: int | None
) -> None:
    images, findings, expected = corpus(tmp_path, image_shards, finding_shards)
    index, records = index_findings(Location.parse(tmp_path / "staging"), images, findings, groups=groups)
    assert len(records) == finding_shards
    for number, shard in enumerate(images[1].dataset("images").shards):
        studies = finding_index.read_shard(images[0], shard, IMAGES, ["study_id"])["study_id"]
        found = index.findings_of(number, studies)
        assert {study: [row["finding_id"] for row in rows] for study, rows in found.items()} == {
            study: expected[study] for study in set(studies.to_pylist()) if study in expected
        }


def test_each_findings_shard_is_read_once_however_many_image_shards_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, findings, _ = corpus(tmp_path, image_shards=40, finding_shards=3)
    read: Counter[str] = Counter()
    original = finding_index.read_shard

    def counting(run: Location, shard: Shard, schema: DatasetSchema, columns: list[str] | None = None) -> Any:
        read[schema.name] += 1
        return original(run, shard, schema, columns)

    monkeypatch.setattr(finding_index, "read_shard", counting)
    index, _ = index_findings(Location.parse(tmp_path / "staging"), images, findings)
    assert read == {"images": 40, "resolved_findings": 3}
    rows = sum(
        len(found)
        for number, shard in enumerate(images[1].dataset("images").shards)
        for found in index.findings_of(number, original(images[0], shard, IMAGES, ["study_id"])["study_id"]).values()
    )
    cut = list((tmp_path / "staging").rglob("group-*/*.parquet"))
    held = sum(finding_index.read_staged(Location.parse(file), RESOLVED_FINDINGS).num_rows for file in cut)
    assert held == rows > 0, "what an image shard reads is its own, and nothing else was written"


def test_findings_without_an_image_are_not_looked_at(tmp_path: Path) -> None:
    images, findings, expected = corpus(tmp_path, image_shards=4, finding_shards=2)
    _, records = index_findings(
        Location.parse(tmp_path / "staging"), images, findings,
        selected=lambda table: {"ids": sorted(table["finding_id"].to_pylist())},
    )  # fmt: skip
    looked_at = sorted(number for record in records for number in record["ids"])
    with_images = {f"s{number}" for number in range(60) if number % 3}
    assert looked_at == sorted(i for study, ids in expected.items() if study in with_images for i in ids)


def test_a_damaged_index_is_noticed(tmp_path: Path) -> None:
    images, findings, _ = corpus(tmp_path, image_shards=2, finding_shards=1)
    staging = Location.parse(tmp_path / "staging")
    index_findings(staging, images, findings)
    file = tmp_path / "staging/findings/owners-of-all"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(MedfilipError) as caught:
        finding_index._read_owners(Location.parse(file))
    assert caught.value.code is ErrorCode.SHARD_CORRUPT


def test_groups_grow_with_the_images_and_stay_small() -> None:
    assert [group_count(n) for n in (1, 200, 256, 1000, 100_000)] == [1, 200, 256, 256, 6250]
