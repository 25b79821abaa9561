"""The command line: help that teaches, one clear sentence for every mistake, no traceback without --debug."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from medfilip.core.errors import ErrorCode
from medfilip.core.settings import load_settings
from pipelines.ingest import IngestSettings
from pipelines.job import JOBS
from pipelines.submit import build_wheel, flat_overrides
from tests.support.command import medfilip_here


def medfilip(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1", **environment},
        timeout=60,
    )


def test_help_names_every_job_and_the_way_of_the_data() -> None:
    text = medfilip("--help").stdout
    assert all(job.split("_")[0] in text for job in JOBS)
    assert "ingest → extract → inject → pretrain → evaluate → serve" in text


@pytest.mark.parametrize("job", sorted(JOBS))
def test_every_job_starts_by_its_own_name_as_a_cluster_starts_it(job: str) -> None:
    told = medfilip_here(job, "--help")
    assert told.returncode == 0 and f"MEDFILIP_{job.upper()}__KEY" in told.stdout


def test_job_help_lists_settings_with_defaults() -> None:
    text = medfilip_here("extract", "--help").stdout
    assert "vllm.model" in text and "lexicon" in text and "MEDFILIP_EXTRACT__KEY" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_help_behind_a_kind_of_evaluation_tells_that_kind_alone() -> None:
    told, one = medfilip_here("evaluate", "--help").stdout, medfilip_here("evaluate", "extraction", "--help").stdout
    tables = ("MEDFILIP_EVALUATE__KEY", "MEDFILIP_EVALUATE_EXTRACTION__KEY", "MEDFILIP_ABLATION__KEY")
    assert all(table in told for table in tables)
    assert [table in one for table in tables] == [False, True, False]


def test_serve_help_lists_its_settings() -> None:
    text = medfilip_here("serve", "--help").stdout
    assert "encoder.max_batch_size" in text and "MEDFILIP_SERVE__KEY" in text and "MEDFILIP_API_KEYS" in text
    assert max(len(line) for line in text.splitlines()) <= 100


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("serve", "/nowhere"), "input_not_found", "medfilip demo"),
        (("serve", "/nowhere", "prot=1"), "config_unknown_key", "Did you mean 'port'?"),
        (("extract", "report=x"), "config_unknown_key", "Did you mean 'reports'?"),
        (("extract",), "config_invalid", "reports=VALUE"),
        (("extract", "reports"), "config_invalid", "key=value"),
        (("ingest",), "config_invalid", "give reports=FOLDER"),
        (("ingest", "reports=/nowhere/at/all"), "input_not_found", "'reports'"),
        (("ingest", "reports=gopher://x"), "uri_not_allowed", "s3://"),
        (("extract", "reports=/nowhere"), "input_not_published", "manifest.json"),
        (("submit", "nothing"), "config_invalid", "ingest"),
        (("submit", "ingest", "reports=/x"), "config_invalid", "root=s3://"),
        (("submit", "ingest", "reports=x", "root=/r"), "config_invalid", "reports=s3://"),
        (("ingest", "reports=2024"), "config_invalid", "Quote it"),
        (("phantom", "count=1", "root=/dev/null"), "storage_failed", "/dev/null"),
        (("extract", "reports=/nowhere", "engine=vllm", "vllm.model=/nowhere"), "input_not_published", "manifest.json"),
        (
            ("submit", "ingest", "reports=/x", "root=/r", "--address", "http://127.0.0.1:9"),
            "cluster_unreachable",
            "--address",
        ),
    ],
)
def test_mistakes_get_one_sentence_and_a_code(arguments: tuple[str, ...], code: str, words: str) -> None:
    result = medfilip_here(*arguments)
    message = " ".join(result.stderr.split())
    assert result.returncode in (1, 2)
    assert f"[{code}]" in message and words in message
    assert "Traceback" not in result.stderr and code in set(ErrorCode)


def test_debug_shows_the_traceback() -> None:
    assert "Traceback" in medfilip("ingest", "reports=/nowhere", "--debug").stderr


def test_printed_settings_resolve_every_layer(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("reports: /from/file\nstore_size: 256\n")
    result = medfilip(
        "ingest", "split.test=0.1", "split.train=0.8", "--config", str(tmp_path / "c.yaml"), "--print-config",
        MEDFILIP_INGEST__STORE_SIZE="512", MEDFILIP_PROJECT_KEY="do-not-print",
    )  # fmt: skip
    settings = yaml.safe_load(result.stdout)
    assert (settings["reports"], settings["store_size"], settings["split"]["test"]) == ("/from/file", 512, 0.1)
    assert "do-not-print" not in result.stdout


def test_settings_travel_resolved_whatever_the_cluster_says() -> None:
    overrides = ["reports=/x", "split.train=0.8", "split.test=0.1", "ray.num_cpus=6"]
    settings = load_settings(IngestSettings, "ingest", overrides=overrides, environment={})
    elsewhere = {"MEDFILIP_INGEST__STORE_SIZE": "64", "MEDFILIP_INGEST__SPLIT__VALIDATION": "0.5"}
    assert (
        load_settings(IngestSettings, "ingest", overrides=flat_overrides(settings), environment=elsewhere) == settings
    )


def test_the_wheel_holds_code_and_data(tmp_path: Path) -> None:
    import zipfile

    names = zipfile.ZipFile(build_wheel(tmp_path)).namelist()
    for expected in ("medfilip/findings/data/ontology.yaml", "pipelines/cli.py", "serve/__init__.py"):
        assert expected in names
    assert not any(name.startswith(("platform/", "tests/")) for name in names)
