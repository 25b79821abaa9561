"""An endpoint on the shared cluster for the tests of a module: it must end before the cluster does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.audit import verify
from serve.local import Endpoint, running_endpoint
from serve.settings import EncoderSettings, ServeSettings


@pytest.fixture(scope="module")
def audit_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The audit log of the endpoint; sound when it has ended."""
    folder = tmp_path_factory.mktemp("audit")
    yield folder
    assert [chain.state for chain in verify(folder)] == ["sound"], "the gateway closed it"


@pytest.fixture(scope="module")
def endpoint(ray_cluster: None, tiny_checkpoint: Path, audit_folder: Path) -> Iterator[Endpoint]:
    # A long wait for batches, so that requests sent together are seen to be computed together on a slow machine.
    encoder = EncoderSettings(batch_wait_s=0.5)
    settings = ServeSettings(checkpoint="", port=0, encoder=encoder, audit_folder=str(audit_folder))
    with running_endpoint(tiny_checkpoint, settings) as running:
        yield running
