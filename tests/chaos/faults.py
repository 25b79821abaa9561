"""What can go wrong, drawn from a seed: a fault disturbs a run, and a plain start of the job must mend it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from medfilip.storage.location import Location
from medfilip.storage.manifest import MANIFEST_NAME
from tests.chaos.arena import STARTS, Arena
from tests.chaos.driver import Driver
from tests.chaos.moments import Moment, draw_moment
from tests.chaos.poison import poisoned_reports
from tests.chaos.s3 import BUCKET, bucket_files, faulty_s3, moto, s3_environment

_WORKING = ("split", "merge", "choose", "read", "collect", "cached", "settle", "mentions")
_DAMAGE = ("shard_corrupt", "schema_version_mismatch", "column_missing")
"""What a damaged file is told as: a flipped byte can also hit what it says of itself."""

_READ_AFTER = {
    "split": ("staging/split/*/*.parquet",),
    "choose": ("sentences/*.parquet", "staging/lexicon/pending/*.parquet"),
    "read": ("staging/lexicon/pending/*.parquet", "staging/lexicon/cut/*/*.parquet"),
    "collect": ("staging/lexicon/cut/*/*.parquet", "sentences/*.parquet"),
    "cached": ("sentences/*.parquet", "../../sentence_findings/*/*/*.parquet"),
    "settle": ("staging/lookup/*.arrow", "../../sentence_findings/*/*/*.parquet", "occurrences/*.parquet"),
    "mentions": ("staging/lookup/*.arrow", "occurrences/*.parquet"),
}
"""What is read after a moment. Ray's own checkpoint is left out: what it says wrongly of a row shows at the end."""


def kill_driver(arena: Arena) -> None:
    """SIGKILL the driver."""
    moment = draw_moment(arena)
    with _struck(arena, "driver", moment) as (driver, come):
        if come:
            driver.kill()


def kill_worker(arena: Arena) -> None:
    """SIGKILL a worker process, and sometimes a second one; Ray starts its task again, and the job may well finish."""
    moment = draw_moment(arena, _WORKING)
    with _struck(arena, "worker", moment) as (driver, come):
        for _ in range(arena.rng.randint(1, 2) if come else 0):
            driver.kill_worker(arena.rng)


def kill_raylet(arena: Arena) -> None:
    """SIGKILL the raylet: a node is lost, here the only one."""
    moment = draw_moment(arena, _WORKING)
    with _struck(arena, "raylet", moment) as (driver, come):
        if come:
            driver.kill_raylet()


def kill_cluster(arena: Arena) -> None:
    """SIGKILL all processes of the cluster at once, the driver left alone."""
    moment = draw_moment(arena, _WORKING)
    with _struck(arena, "cluster", moment) as (driver, come):
        if come:
            driver.kill_cluster()


@contextmanager
def _struck(arena: Arena, kind: str, moment: Moment) -> Iterator[tuple[Driver, bool]]:
    with arena.started() as driver:
        come = moment.come(arena, driver)
        arena.faults.append({"kind": kind, "moment": moment.told(), "struck": come})
        yield driver, come


def may_mount() -> bool:
    """Whether this process may mount a file system."""
    return os.geteuid() == 0 and shutil.which("mount") is not None


def fill_disk(arena: Arena) -> None:
    """Let the disk be full before the run is done, then make room."""
    share = arena.rng.uniform(0.02, 1.3)
    size = max(64 << 10, int(arena.corpus.bytes * share))
    how = "tmpfs" if may_mount() else "unwritable folder"
    arena.faults.append({"kind": "disk", "how": how, "bytes": size})
    with _small_disk(Path(arena.root.path), size) as make_room:
        with arena.started():
            pass
        arena.faults[-1]["struck"] = arena.ends[-1].exit != 0
        make_room()
        arena.start_until_done()
        _keep(Path(arena.root.path), arena)


@contextmanager
def _small_disk(root: Path, size: int) -> Iterator[Callable[[], object]]:
    """Put a folder on a file system of so many bytes; yields what makes room.

    Where nothing may be mounted, the folder cannot be written instead: another way in which every write fails.
    """
    if not may_mount():
        root.chmod(0o500)
        yield lambda: root.chmod(0o700)
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(root)], check=True)
    try:
        yield lambda: subprocess.run(["mount", "-o", "remount,size=1g", str(root)], check=True)
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True)


def _keep(root: Path, arena: Arena) -> None:
    """Copy what lies on a file system that is about to go."""
    copy = arena.folder / "copy"
    shutil.copytree(root, copy)
    arena.root = Location.parse(copy)


def corrupt_shard(arena: Arena) -> None:
    """Flip a byte of a file that the next start has to read; it must be told by name, and mended by its restoring."""
    if arena.rng.random() < 0.4:
        arena.reports = arena.folder / "reports" / arena.corpus.reports.name
        shutil.copytree(arena.corpus.reports, arena.reports)
        files = sorted((arena.reports / "reports").glob("*.parquet"))
        where = "published"
    else:
        moment = draw_moment(arena, tuple(_READ_AFTER))
        with _struck(arena, "driver", moment) as (driver, _):
            driver.kill()
        (run,) = arena.runs()
        if (run / MANIFEST_NAME).exists():
            return
        files = sorted(file for pattern in _READ_AFTER[moment.name] for file in Path(run.path).glob(pattern))
        where = "staged"
    assert files, f"nothing to damage: {arena.faults}"
    file = arena.rng.choice(files)
    original = file.read_bytes()
    at = arena.rng.randrange(len(original))
    spoiled = bytearray(original)
    spoiled[at] ^= 1 << arena.rng.randrange(8)
    file.write_bytes(spoiled)
    name = f"{file.parent.name}/{file.name}"
    fault = {"kind": "shard", "where": where, "file": name, "at": at, "bytes": len(original)}
    arena.faults.append(fault)
    with arena.started():
        pass
    ended = arena.ends[-1]
    fault["noticed"] = ended.exit != 0
    if not ended.exit and file.exists():
        # Nobody had to read it any more; whoever reads it once it is published compares its hash.
        file.write_bytes(original)
    if ended.exit:
        assert ended.error in _DAMAGE, f"a damaged {where} file is told as {ended.error}: {ended.message}"
        assert file.name in ended.message, f"the message does not name the file: {ended.message}"
        if where == "staged" and "sentence_findings" not in file.parts and arena.rng.random() < 0.5:
            # What the message advises for a run that is not finished.
            (run,) = arena.runs()
            (run / "staging").delete()
            fault["mended"] = "staging deleted"
        else:
            file.write_bytes(original)
            fault["mended"] = "restored"


def feed_poison(arena: Arena) -> None:
    """Put reports among the others that nobody would write."""
    arena.reports = arena.folder / "poisoned"
    number = poisoned_reports(arena.corpus.reports, arena.reports, arena.rng)
    arena.faults.append({"kind": "poison", "reports": number})
    if arena.rng.random() < 0.5:
        kill_driver(arena)


def fail_s3(arena: Arena) -> None:
    """Write to a bucket whose endpoint fails a share of all requests; the driver is killed at times as well."""
    share = round(arena.rng.choice((0.01, 0.05, 0.1, 0.2, 0.3)), 3)
    with moto() as endpoint, faulty_s3(endpoint, share, arena.rng.randrange(1 << 30)) as proxy:
        arena.root = Location.parse(f"s3://{BUCKET}/{arena.folder.name}")
        arena.environment = s3_environment(proxy.url)
        # Fewer ranges and blocks, so fewer requests; the rows are the same, and their order in all ranges together.
        arena.settings = ["rows_per_block=600", "buckets=2"]
        kill_at = arena.rng.randint(20, 800) if arena.rng.random() < 0.3 else None
        arena.faults.append({"kind": "s3", "share": share, "driver_killed_at_request": kill_at})
        for start in range(STARTS - 1):
            with arena.started() as driver:
                if kill_at and not start and arena.wait_until(lambda: proxy.requests >= kill_at, driver):
                    driver.kill()
            if arena.ends[-1].exit == 0:
                break
        arena.faults[-1] |= {"requests": proxy.requests, "spoiled": proxy.spoiled}
        proxy.share = 0.0
        arena.start_until_done()
        _fetch(arena, endpoint)


def _fetch(arena: Arena, endpoint: str) -> None:
    """Copy what lies in the bucket to the run's folder, where the comparison reads it."""
    copy = arena.folder / "copy"
    for key, data in bucket_files(endpoint, arena.folder.name):
        file = copy / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    arena.root = Location.parse(copy)


FAULTS: dict[str, Callable[[Arena], None]] = {
    "driver": kill_driver,
    "worker": kill_worker,
    "raylet": kill_raylet,
    "disk": fill_disk,
    "s3": fail_s3,
    "shard": corrupt_shard,
    "poison": feed_poison,
    "cluster": kill_cluster,
}
KILLS = (kill_driver, kill_worker, kill_raylet, kill_cluster)
