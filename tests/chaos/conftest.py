"""These tests start their own clusters; the shared one ends first: two on one machine compete for an agent's port."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(scope="session", autouse=True)
def no_shared_cluster() -> None:
    """End the shared cluster; tests in this folder run last."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()
