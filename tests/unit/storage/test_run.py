"""Runs: resume, publish once, one driver at a time; manifests that cannot lie about their shards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.storage import lease as lease_module
from medfilip.storage.lease import Lease
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest, read_manifest, run_folder
from medfilip.storage.run import RunSpec, open_run
from medfilip.storage.schemas import REJECTED, REPORTS
from medfilip.storage.shards import decode_shard, read_dataset, read_staged, write_shard, write_staged

ROWS = [{"id": "a", "stage": "ingest", "code": "report_empty", "message": "The report has no text."}]


@pytest.fixture(params=["file", "s3"])
def root(request: pytest.FixtureRequest, tmp_path) -> Location:
    if request.param == "file":
        return Location.parse(tmp_path)
    return Location.parse(f"{request.getfixturevalue('s3_bucket')}/{uuid.uuid4().hex}")


def publish(root: Location, spec: RunSpec, **kwargs: bool) -> tuple[Location, Manifest]:
    with open_run(root, spec, **kwargs) as run:
        if run.manifest is None:
            shard = write_shard(run.location, "rejected/part-00000.parquet", REJECTED, REJECTED.from_rows(ROWS))
            run.publish({"rejected": [shard]}, counts={"n": 1})
        assert run.manifest is not None
        return run.location, run.manifest


def test_a_killed_run_is_resumed_and_a_finished_one_is_not_repeated(root: Location) -> None:
    spec = RunSpec("ingest", {"x": 1})
    with open_run(root, spec) as first:
        (first.staging / "half").write_bytes(b"work")
    with open_run(root, spec) as second:
        assert second.location == first.location
        assert (second.staging / "half").read_bytes() == b"work"
    location, manifest = publish(root, spec)
    assert location == first.location and not (location / "staging/half").exists()
    again, same = publish(root, spec)
    assert again == location and same == manifest
    other, _ = publish(root, spec, new_run=True)
    assert other != location and other.parent == location.parent


def test_fingerprints_cover_content_and_settings_but_not_time(root: Location) -> None:
    one = publish(root, RunSpec("ingest", {"x": 1}))[1]
    two = publish(root, RunSpec("ingest", {"x": 1}), new_run=True)[1]
    three = publish(root, RunSpec("ingest", {"x": 2}))[1]
    assert one.fingerprint == two.fingerprint != three.fingerprint
    assert one.run_id != two.run_id
    assert RunSpec("a", {}, inputs={"r": "1"}).fingerprint != RunSpec("a", {}, inputs={"r": "2"}).fingerprint


def test_two_drivers_cannot_hold_one_run(root: Location) -> None:
    spec = RunSpec("ingest", {})
    with open_run(root, spec), pytest.raises(MedfilipError) as caught, open_run(root, spec):
        pass
    assert caught.value.code is ErrorCode.RUN_LOCKED
    assert str(os.getpid()) in str(caught.value) and "--new-run" in str(caught.value)


def test_the_lease_of_a_dead_process_is_taken_over(tmp_path) -> None:
    folder = Location.parse(tmp_path)
    program = (
        "import os, sys; from medfilip.storage.lease import Lease; from medfilip.storage.location import Location\n"
        "Lease.acquire(Location.parse(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert (folder / "lease-000001.json").exists()
    lease = Lease.acquire(folder)
    lease.check()
    lease.release()


def test_an_expired_lease_is_lost_and_noticed(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Location.parse(tmp_path)
    monkeypatch.setattr(lease_module, "TIME_TO_LIVE_S", -1.0)
    first = Lease.acquire(folder)
    second = Lease.acquire(folder)
    with pytest.raises(MedfilipError) as caught:
        first.check()
    assert caught.value.code is ErrorCode.RUN_LOCKED
    second.check()
    first.release()
    second.release()


def test_unfinished_and_tampered_manifests_are_refused(tmp_path) -> None:
    with pytest.raises(MedfilipError) as caught:
        read_manifest(Location.parse(tmp_path))
    assert caught.value.code is ErrorCode.INPUT_NOT_PUBLISHED
    location, _ = publish(Location.parse(tmp_path), RunSpec("ingest", {}))
    file = location / "manifest.json"
    content = json.loads(file.read_bytes())
    content["datasets"]["rejected"]["shards"][0]["sha256"] = "0" * 64
    file.write_bytes(json.dumps(content).encode())
    with pytest.raises(MedfilipError) as caught:
        read_manifest(location)
    assert caught.value.code is ErrorCode.MANIFEST_CORRUPT
    file.write_bytes(b"{}")
    with pytest.raises(MedfilipError):
        read_manifest(location)


def test_corrupt_and_foreign_shards_are_refused(tmp_path) -> None:
    location, manifest = publish(Location.parse(tmp_path), RunSpec("ingest", {}))
    assert read_dataset(location, manifest, "rejected").to_pylist() == ROWS
    shard = location / manifest.datasets["rejected"].shards[0].path
    data = bytearray(shard.read_bytes())
    data[20] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(MedfilipError) as caught:
        read_dataset(location, manifest, "rejected")
    assert caught.value.code is ErrorCode.SHARD_CORRUPT
    with pytest.raises(MedfilipError) as caught:
        decode_shard(write_and_read(location), shard, REPORTS)
    assert caught.value.code is ErrorCode.SCHEMA_VERSION_MISMATCH
    with pytest.raises(MedfilipError) as caught:
        decode_shard(b"no parquet", shard, REPORTS)
    assert caught.value.code is ErrorCode.SHARD_CORRUPT


def test_a_staged_file_vouches_for_every_byte_of_it(tmp_path) -> None:
    file, table = Location.parse(tmp_path / "x.parquet"), REJECTED.from_rows(ROWS * 20)
    write_staged(file, REJECTED, table)
    assert read_staged(file, REJECTED) == table
    data = file.read_bytes()
    for at in range(0, len(data), 7):
        spoiled = bytearray(data)
        spoiled[at] ^= 1 << at % 8
        file.write_bytes(bytes(spoiled))
        with pytest.raises(MedfilipError, match=r"x\.parquet is damaged") as caught:
            read_staged(file, REJECTED)
        assert caught.value.code is ErrorCode.SHARD_CORRUPT


def test_a_flipped_byte_of_a_page_is_noticed_without_a_manifest(tmp_path) -> None:
    location = Location.parse(tmp_path)
    write_shard(location, "x.parquet", REJECTED, REJECTED.from_rows([{**ROWS[0], "id": f"{n}"} for n in range(500)]))
    data = bytearray((location / "x.parquet").read_bytes())
    data[len(data) // 3] ^= 1
    with pytest.raises(MedfilipError) as caught:
        decode_shard(bytes(data), location / "x.parquet", REJECTED)
    assert caught.value.code is ErrorCode.SHARD_CORRUPT


def write_and_read(location: Location) -> bytes:
    write_shard(location, "x.parquet", REJECTED, REJECTED.from_rows(ROWS))
    return (location / "x.parquet").read_bytes()


def test_the_same_table_gives_the_same_bytes(tmp_path) -> None:
    table = REJECTED.from_rows(ROWS * 100)
    first = write_shard(Location.parse(tmp_path), "a.parquet", REJECTED, table)
    second = write_shard(Location.parse(tmp_path), "b.parquet", REJECTED, table)
    assert first.sha256 == second.sha256


def test_a_lease_outlives_a_failed_renewal_but_not_many(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "TIME_TO_LIVE_S", 0.4)
    lease = Lease.acquire(Location.parse(tmp_path))
    write = Location.write_bytes
    monkeypatch.setattr(Location, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError("no space")))
    time.sleep(0.2)
    lease.check()
    time.sleep(0.6)
    with pytest.raises(MedfilipError):
        lease.check()
    monkeypatch.setattr(Location, "write_bytes", write)
    lease.release()


def test_a_run_is_named_by_its_folder_or_its_manifest(tmp_path) -> None:
    location, manifest = publish(Location.parse(tmp_path), RunSpec("ingest", {}))
    for name in (str(location), f"{location}/manifest.json"):
        assert run_folder(name) == location
        assert read_manifest(run_folder(name)) == manifest


def test_a_manifest_vouches_for_every_number_in_it(tmp_path) -> None:
    location, _ = publish(Location.parse(tmp_path), RunSpec("ingest", {}))
    file = location / "manifest.json"
    for change in ({"counts": {"n": 2}}, {"manifest_version": 2}, {"versions": {"ontology": "other"}}):
        content = json.loads(file.read_bytes()) | change
        with pytest.raises(MedfilipError) as caught:
            file.write_bytes(json.dumps(content).encode())
            read_manifest(location)
        assert caught.value.code is ErrorCode.MANIFEST_CORRUPT


def test_staging_of_a_driver_killed_after_publishing_is_cleared(tmp_path) -> None:
    spec = RunSpec("ingest", {})
    location, _ = publish(Location.parse(tmp_path), spec)
    (location / "staging/left").write_bytes(b"text")
    publish(Location.parse(tmp_path), spec)
    assert not (location / "staging").exists()


def test_drivers_that_start_together_make_one_run(tmp_path) -> None:
    root, spec = Location.parse(tmp_path), RunSpec("ingest", {})
    ready, leave = threading.Barrier(2), threading.Event()
    outcomes: list[str] = []

    def drive() -> None:
        ready.wait()
        try:
            with open_run(root, spec) as run:
                outcomes.append(run.run_id)
                leave.wait(10)
        except MedfilipError as error:
            outcomes.append(error.code)
            leave.set()

    threads = [threading.Thread(target=drive) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 2 and ErrorCode.RUN_LOCKED in outcomes
    assert len([child for child in (root / f"ingest-{spec.fingerprint}").children() if child.is_dir()]) == 1
