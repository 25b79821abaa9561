"""A small phantom corpus, ingested and extracted once on the shared cluster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from medfilip.core.settings import load_settings
from medfilip.phantom.corpus import write_corpus
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest
from pipelines.job import JOBS, Outcome

STUDIES = 24


def run_job(name: str, *overrides: str, new_run: bool = False) -> Outcome:
    """Run a job in this process on the shared cluster."""
    module = JOBS[name].load()
    return module.run(load_settings(module.SETTINGS, name, overrides=overrides), new_run=new_run)


@dataclass(frozen=True)
class Ran:
    """A finished run."""

    location: Location
    manifest: Manifest

    @classmethod
    def of(cls, outcome: Outcome) -> Ran:
        return cls(Location.parse(outcome.location), outcome.manifest)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    write_corpus(folder, STUDIES, seed=5)
    return folder


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def ingested(ray_cluster: None, corpus: Path, root: Path) -> Ran:
    return Ran.of(
        run_job("ingest", f"reports={corpus}", f"images={corpus}/images", "keep_report_ids=true", f"root={root}")
    )


@pytest.fixture(scope="session")
def extracted(ingested: Ran, root: Path) -> Ran:
    return Ran.of(run_job("extract", f"reports={ingested.location}", f"root={root}", "buckets=3"))
