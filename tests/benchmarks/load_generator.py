"""Sends requests to an endpoint and notes when each was answered, in a process whose CPU time can be told apart.

Usage: ``python -m tests.benchmarks.load_generator PLAN.json OUT.json``; `endpoint_load` writes the plan.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from tests.benchmarks.load_statistics import Request, arrivals

_GIVE_UP_S = 60.0


@dataclass(frozen=True)
class Phase:
    """A time of load.

    Attributes
    ----------
    rate
        Requests per second that come whether or not earlier ones were answered; ``None``: ``clients`` send one after
        the other.
    """

    url: str
    key: str
    files: tuple[str, ...]
    seconds: float
    rate: float | None = None
    clients: int = 8
    seed: int = 0


@dataclass(frozen=True)
class Sent:
    """What came of a phase.

    Attributes
    ----------
    began
        Clock of the machine (`time.monotonic`) at its begin.
    cpu_s
        CPU time of this process.
    """

    began: float
    seconds: float
    cpu_s: float
    requests: tuple[tuple[float, float, int | None], ...]


async def send_all(phase: Phase) -> Sent:
    """Send the requests of a phase and wait for every answer."""
    bodies = [Path(file).read_bytes() for file in phase.files]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=256)
    headers = {"Authorization": f"Bearer {phase.key}", "Content-Type": "application/dicom"}
    async with httpx.AsyncClient(headers=headers, limits=limits, timeout=_GIVE_UP_S) as client:
        began, cpu = time.monotonic(), time.process_time()

        async def one(number: int, due: float) -> Request:
            try:
                answer = await client.post(f"{phase.url}/v1/diagnose", content=bodies[number % len(bodies)])
                status: int | None = answer.status_code
            except httpx.HTTPError:
                status = None
            return Request(due, time.monotonic() - began, status)

        async def one_after_the_other(first: int) -> list[Request]:
            found: list[Request] = []
            while (now := time.monotonic() - began) < phase.seconds:
                found.append(await one(first + len(found), now))
            return found

        async def at(number: int, due: float) -> Request:
            await asyncio.sleep(max(0.0, due - (time.monotonic() - began)))
            return await one(number, due)

        if phase.rate is None:
            parts = await asyncio.gather(*(one_after_the_other(first) for first in range(phase.clients)))
            requests = [request for part in parts for request in part]
        else:
            times = arrivals(phase.rate, phase.seconds, phase.seed)
            requests = list(await asyncio.gather(*(at(number, due) for number, due in enumerate(times))))
        cpu_s, seconds = time.process_time() - cpu, time.monotonic() - began
    return Sent(began, seconds, cpu_s, tuple((sent.due, sent.ended, sent.status) for sent in requests))


def main(arguments: Sequence[str]) -> None:
    """Run the phase of a plan."""
    plan = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    phase = Phase(**{**plan, "files": tuple(plan["files"])})
    Path(arguments[1]).write_text(json.dumps(asdict(asyncio.run(send_all(phase)))), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
