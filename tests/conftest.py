"""Shared fixtures, and the rule about skips: each is named, and under MEDFILIP_STRICT only listed ones pass."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Before anything imports Ray: read at import time.
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("RAY_worker_maximum_startup_concurrency", "8")
os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "60")
os.environ.setdefault("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "serve.heads:bound_heads")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Read by torch: tensors of tests are so small that more threads only wait for each other. Ray's workers have one too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Pseudonyms of tests come from a fixed key, never from the user's own.
os.environ["MEDFILIP_PROJECT_KEY"] = "key-of-the-tests"

TESTS = Path(__file__).parent
REPOSITORY = TESTS.parent
SHARED_CLUSTER, OWN_CLUSTERS = "shared cluster", "own clusters"
_STREAMS = {
    "ray": SHARED_CLUSTER, "vllm": SHARED_CLUSTER, "serve": SHARED_CLUSTER,
    "cluster": OWN_CLUSTERS, "chaos": OWN_CLUSTERS,
}  # fmt: skip
"""Folders whose tests follow each other in one process; the two streams take about as long as each other."""

_skipped: dict[str, str] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run cheap tests first; a test's folder is its mark."""
    marked = ["ray", "vllm", "serve", "cluster", "chaos"]
    order = ["unit", "standards", "learning", "processes", *marked]
    folders = {item: item.path.relative_to(TESTS).parts[0] for item in items}
    for item, folder in folders.items():
        if folder in marked:
            item.add_marker({"chaos": "cluster"}.get(folder, folder))
    items.sort(key=lambda item: order.index(folders[item]) if folders[item] in order else 0)
    if hasattr(config, "workerinput"):
        # One of several processes (pytest-xdist): the streams begin at once, and what is cheap fills up beside them.
        streams = {SHARED_CLUSTER: 0, OWN_CLUSTERS: 1}
        items.sort(key=lambda item: streams.get(_STREAMS.get(folders[item], ""), 2))


def unit_of_work(nodeid: str) -> str:
    """Return what a test is handed out with: its stream, or else its folder, whose fixtures are then made once."""
    folders = nodeid.split("::", maxsplit=1)[0].split("/")[:-1]
    return _STREAMS.get(folders[1], "/".join(folders[:3])) if len(folders) > 1 else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out the two streams of tests on clusters and then the other folders, each whole, to ``-n`` processes."""
    from xdist.scheduler import LoadScopeScheduling

    class Streams(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit_of_work(nodeid)

    config.option.loadscopereorder = False  # else what has the fewest tests, which are the longest, would come last
    return Streams(config, log)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple):
        _skipped[report.nodeid] = report.longrepr[2]


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if not os.environ.get("MEDFILIP_STRICT") or reporter is None:  # it is told of all that its processes skip
        return
    lines = (TESTS / "allowed_skips.txt").read_text(encoding="utf-8").splitlines()
    allowed = {line.split("#")[0].strip() for line in lines} - {""}
    forbidden = [node for node in _skipped if node not in allowed]
    if forbidden:
        for node in forbidden:
            reporter.write_line(f"skipped, but not in tests/allowed_skips.txt: {node} ({_skipped[node]})", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def needs_program() -> Callable[[str], str]:
    """Return a function that gives the path of a system program or skips the test, naming it."""

    def find(name: str) -> str:
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"needs the program {name}")
        return path

    return find


@pytest.fixture
def data_folder() -> Path:
    """Folder of real data for measurements, or a skip that names the variable."""
    folder = os.environ.get("MEDFILIP_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data: MEDFILIP_DATA names its folder")
    return Path(folder)


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small untrained model with a fixed seed, two calibrated categories, and synthetic by its card."""
    import torch

    from medfilip.findings.ontology import load_ontology
    from medfilip.knowledge.knowledge import load_knowledge
    from medfilip.model.calibration import Calibration, Platt
    from medfilip.model.checkpoint import Versions, save_checkpoint
    from medfilip.model.config import ModelConfig
    from medfilip.model.dual_encoder import DualEncoder
    from medfilip.model.tokenizer import Tokenizer

    texts = ["left pleural effusion", "no pleural effusion", "nodule in the upper lobe", "cardiomegaly", "mass"]
    config = ModelConfig(image_size=32, embed_dim=16, max_tokens=16, vocabulary=256)
    tokenizer = Tokenizer.train(texts, vocabulary=config.vocabulary, max_tokens=config.max_tokens)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(
        folder,
        DualEncoder(config, tokenizer),
        Versions(load_ontology().fingerprint, load_knowledge().fingerprint, synthetic=True),
        calibration=Calibration(
            categories={
                "pleural_effusion": Platt(slope=1.5, intercept=0.2, positives=20, negatives=30),
                "nodule": Platt(slope=0.7, intercept=-0.4, positives=12, negatives=40),
            }
        ),
        metrics={"validation_loss": 1.25},
    )
    return folder


@pytest.fixture(scope="session")
def phantom_dicom() -> bytes:
    """Return the DICOM file of one synthetic study."""
    from medfilip.phantom.corpus import dicom_bytes
    from medfilip.phantom.study import make_study

    return dicom_bytes(make_study(3, 0))


@pytest.fixture(scope="session")
def ray_cluster(s3_bucket: str) -> Iterator[None]:
    """Start one local cluster for all tests that need Ray but do not kill it; its workers know the S3 of the tests."""
    ray = pytest.importorskip("ray")
    ray.init(
        address="local",
        num_cpus=8,  # logical: Ray Data's pools hold a share each, whatever the machine has
        object_store_memory=400 << 20,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def s3_bucket() -> Iterator[str]:
    """Start a real S3 API over HTTP and return ``s3://bucket``."""
    pytest.importorskip("moto")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    patch = pytest.MonkeyPatch()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }.items():
        patch.setenv(name, value)
    import boto3

    boto3.client("s3").create_bucket(Bucket="medfilip-test")
    yield "s3://medfilip-test"
    patch.undo()
    server.stop()
