"""A replica of the encoder dies under load: nobody but whom it was just working for may notice."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from medfilip.client import Client
from medfilip.core.errors import MedfilipError
from medfilip.phantom.corpus import dicom_bytes
from medfilip.phantom.study import make_study
from serve.local import Endpoint, running_endpoint
from serve.settings import EncoderSettings, ServeSettings

REPLICAS, CALLERS = 2, 3
PATIENCE_S = 120.0
LABELS = ["nodule", "left pleural effusion"]


@pytest.fixture(scope="module")
def endpoint(ray_cluster: None, tiny_checkpoint: Path) -> Iterator[Endpoint]:
    encoder = EncoderSettings(min_replicas=REPLICAS, max_replicas=REPLICAS)
    settings = ServeSettings(port=0, encoder=encoder, requests_per_minute=1_000_000)
    with running_endpoint(tiny_checkpoint, settings) as opened:
        yield opened


def encoders() -> set[int]:
    """Return the processes of replicas that have started."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            if ":medfilip:encoder" in process.name() or any(":medfilip:encoder" in part for part in process.cmdline()):
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


def running() -> int:
    from ray import serve as rayserve

    from serve.local import APPLICATION

    encoder = rayserve.status().applications[APPLICATION].deployments["encoder"]
    return int(encoder.replica_states.get("RUNNING", 0))


@dataclass
class Callers:
    """Callers that ask one thing after the other; answers and failures with the times of their requests."""

    endpoint: Endpoint
    files: list[bytes]
    answered: list[tuple[float, float, int, tuple[float, ...]]] = field(default_factory=list)
    failed: list[tuple[float, float, str]] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def ask(self, first: int) -> None:
        with Client(self.endpoint.url, self.endpoint.api_key) as client:
            number = first
            while not self.done.is_set():
                which, begun = number % len(self.files), time.monotonic()
                try:
                    answer = client.diagnose(self.files[which], LABELS)
                except MedfilipError as error:
                    self.failed.append((begun, time.monotonic(), str(error.code)))
                else:
                    scores = tuple(finding.probability for finding in answer.findings)
                    self.answered.append((begun, time.monotonic(), which, scores))
                number += 1
                self.done.wait(0.05)


def wait_for(what: object) -> None:
    until = time.monotonic() + PATIENCE_S
    while not what():  # type: ignore[operator]
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_killed_replica_costs_no_answer_and_comes_back(endpoint: Endpoint) -> None:
    files = [dicom_bytes(make_study(7, number, size=128)) for number in range(4)]
    with Client(endpoint.url, endpoint.api_key) as client:
        right = [[finding.probability for finding in client.diagnose(file, LABELS).findings] for file in files]
    before = encoders()
    assert len(before) == REPLICAS
    callers = Callers(endpoint, files)
    threads = [threading.Thread(target=callers.ask, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(callers.answered) > 10 * CALLERS)
        killed = time.monotonic()
        os.kill(min(before), signal.SIGKILL)
        wait_for(lambda: len(encoders() - before) == 1 and running() == REPLICAS)
        restored = time.monotonic()
        wait_for(lambda: sum(begun > restored for begun, *_ in list(callers.answered)) > 10 * CALLERS)
    finally:
        callers.done.set()
        for thread in threads:
            thread.join()
    answered = callers.answered
    in_flight = [begun for begun, ended, *_ in (*answered, *callers.failed) if begun < killed <= ended]
    assert len(in_flight) <= CALLERS
    assert callers.failed == [], f"{len(callers.failed)} failed, {len(in_flight)} were in flight"
    assert any(killed < begun < restored for begun, *_ in answered), "the other replica went on"
    for _, _, which, scores in answered:
        assert list(scores) == pytest.approx(right[which], abs=1e-5)
