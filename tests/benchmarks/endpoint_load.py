"""What the endpoint stands: throughput beside the model's own, waits under load, overload, and a replica that dies.

Usage: ``python -m tests.benchmarks.endpoint_load [--checkpoint FOLDER] [--preset base --image-size 224] [--seconds 15]
[--cpus 8] [--encoders 2] [--clients 8] [--out OUT.json]``. With ``--preset`` the weights are random, as they do not
matter here.
Everything runs on this machine over the loopback, the generator in a process of its own, whose CPU time is told apart:
on a small machine it takes what the endpoint would have had. Phases, each of ``--seconds``:

- *model*: the image tower alone on prepared images, in batches as the encoder makes them, one thread;
- *capacity*: clients that send one request after the other; the answers per second are the capacity;
- *load 50 %* and *80 %*: requests that come at random times at that share of it, whatever the answers are;
- *overload*: twice the capacity: each request shall be answered, or refused at once with 429 or 503;
- *kill*: at half of the capacity one of the encoder's replicas is killed after a third of the time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import psutil

from medfilip.imaging.limits import ImageLimits
from medfilip.model.checkpoint import load_checkpoint, save_checkpoint
from medfilip.model.config import Preset
from medfilip.model.dual_encoder import DualEncoder
from medfilip.model.locate import DEFAULT_CHECKPOINT, find_checkpoint, local_copy
from medfilip.phantom.corpus import dicom_bytes
from medfilip.phantom.study import make_study
from medfilip.storage.location import Location
from serve.cluster import LocalRaySettings
from serve.decoding import DecoderService
from serve.encoding import EncoderService
from serve.local import APPLICATION, Endpoint, running_endpoint
from serve.messages import Decoded
from serve.settings import DecoderSettings, EncoderSettings, ServeSettings
from tests.benchmarks.environment import write_result
from tests.benchmarks.load_generator import Phase, Sent
from tests.benchmarks.load_statistics import Request, after_a_kill, summary

_FILES = 8
_RESTORED_S = 120.0


def model_alone(checkpoint: Path, files: Sequence[bytes], batch: int, seconds: float) -> dict[str, float]:
    """Return images per second of the image tower in batches, and of reading files, each alone in this process."""
    encoder = EncoderService(checkpoint)
    decoder, size = DecoderService(ImageLimits(), store_size=ServeSettings().store_size), encoder.card().image_size
    decoded = [item for item in (decoder.decode(file, size) for file in files) if isinstance(item, Decoded)]
    pixels = [decoded[number % len(decoded)].pixels for number in range(batch)]
    encoder.embed(pixels)
    forward = _per_second(lambda: len(encoder.embed(pixels)), seconds)
    read = _per_second(lambda: len([decoder.decode(file, size) for file in files]), seconds / 3)
    decoder.close()
    return {"batch": batch, "forward_per_s": forward, "decode_per_s": read}


def random_checkpoint(preset: Preset, image_size: int, folder: Path) -> Path:
    """Write a checkpoint of a preset with random weights, and return its folder."""
    made = load_checkpoint(DEFAULT_CHECKPOINT)
    config = made.model.config.model_copy(update={"preset": preset, "image_size": image_size})
    save_checkpoint(folder, DualEncoder(config, made.model.tokenizer), made.versions)
    return folder


def _per_second(work: Callable[[], int], seconds: float) -> float:
    done, began = 0, time.monotonic()
    while (passed := time.monotonic() - began) < seconds or not done:
        done += work()
    return done / passed


class Load:
    """Runs phases of load against an endpoint."""

    def __init__(
        self, endpoint: Endpoint, folder: Path, files: Sequence[Path], seconds: float, clients: int = 8
    ) -> None:
        self._endpoint, self._folder, self._seconds, self._clients = endpoint, folder, seconds, clients
        self._files = tuple(map(str, files))

    def run(self, name: str, rate: float | None = None, *, seed: int = 0) -> tuple[dict[str, Any], Sent]:
        """Run a phase; return its summary and what was sent."""
        phase = Phase(
            url=self._endpoint.url, key=self._endpoint.api_key or "", files=self._files, seconds=self._seconds,
            rate=rate, seed=seed, clients=self._clients,
        )  # fmt: skip
        plan, out = self._folder / f"{name}.plan.json", self._folder / f"{name}.json"
        plan.write_text(json.dumps(asdict(phase)), encoding="utf-8")
        before = _cpu_of_endpoint()
        command = [sys.executable, "-m", "tests.benchmarks.load_generator", str(plan), str(out)]
        subprocess.run(command, check=True)
        sent = Sent(**json.loads(out.read_text(encoding="utf-8")))
        told = summary(requests_of(sent), sent.seconds)
        spent: Counter[str] = Counter()
        for process, (part, seconds) in _cpu_of_endpoint().items():
            spent[part] += max(0.0, seconds - before.get(process, (part, 0.0))[1])
        each = 1000 / max(1, told["answered"])
        return {
            "rate_per_s": rate,
            "seconds": round(sent.seconds, 2),
            "generator_cpu_s": round(sent.cpu_s, 2),
            "endpoint_cpu_s": round(sum(spent.values()), 2),
            "cpu_ms_per_answer": {part: round(s * each, 1) for part, s in spent.most_common() if s * each >= 0.5},
            **told,
        }, sent

    def kill_one(self, rate: float) -> dict[str, Any]:
        """Run a phase in which a replica of the encoder is killed."""
        found: dict[str, float] = {}
        # The generator takes a moment to start: a third of the phase later it is at work.
        thread = threading.Thread(target=_kill_encoder, args=(self._seconds / 3 + 1.5, found))
        thread.start()
        told, sent = self.run("kill", rate, seed=4)
        thread.join()
        killed = found["killed"] - sent.began
        inside = 0 < killed < self._seconds
        return {
            **told,
            "killed_at_s": round(killed, 2) if inside else None,
            "replica_restored_s": round(found["restored"] - found["killed"], 2) if "restored" in found else None,
            **(after_a_kill(requests_of(sent), killed) if inside else {}),
        }


def requests_of(sent: Sent) -> list[Request]:
    """Return the requests of a phase."""
    return [Request(*request) for request in sent.requests]


def _encoders() -> set[str]:
    import ray

    named = ray.util.list_named_actors(all_namespaces=True)
    return {actor["name"] for actor in named if f"{APPLICATION}#encoder#" in actor["name"]}


def _running_encoders() -> int:
    from ray import serve as rayserve

    encoder = rayserve.status().applications[APPLICATION].deployments["encoder"]
    return int(encoder.replica_states.get("RUNNING", 0))


def _kill_encoder(wait_s: float, found: dict[str, float]) -> None:
    import ray

    time.sleep(wait_s)
    before = len(_encoders())
    victim = min(_encoders())
    ray.kill(ray.get_actor(victim, namespace="serve"))
    found["killed"] = time.monotonic()
    while time.monotonic() - found["killed"] < _RESTORED_S:
        time.sleep(0.2)
        alive = _encoders()
        # Until its next health check the controller takes a dead replica for a running one.
        if victim not in alive and len(alive) == before == _running_encoders():
            found["restored"] = time.monotonic()
            return


def _cpu_of_endpoint() -> dict[int, tuple[str, float]]:
    """Return part and CPU seconds of each process of the local Ray; the generator's is not among them then."""
    found: dict[int, tuple[str, float]] = {}
    for process in psutil.Process().children(recursive=True):
        try:
            # Ray names its workers by what they do: ray::ServeReplica:medfilip:encoder.answer
            part = process.name().removeprefix("ray::").removeprefix(f"ServeReplica:{APPLICATION}:").partition(".")[0]
            title = (process.cmdline() or [part])[0]
            if title.startswith("ray::"):
                part = title.removeprefix("ray::").removeprefix(f"ServeReplica:{APPLICATION}:").partition(".")[0]
            times = process.cpu_times()
        except psutil.Error:
            continue  # ended meanwhile
        found[process.pid] = part, times.user + times.system
    return found


def measure(checkpoint: Path, seconds: float, cpus: int, encoders: int, clients: int) -> dict[str, Any]:
    """Run all phases."""
    encoder = EncoderSettings(min_replicas=encoders, max_replicas=encoders)
    settings = ServeSettings(
        checkpoint=str(checkpoint), port=0, requests_per_minute=1_000_000, concurrent_requests=10_000,
        encoder=encoder, decoder=DecoderSettings(min_replicas=2, max_replicas=2),
        ray=LocalRaySettings(num_cpus=cpus, object_store_mb=512),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [folder / f"{number}.dcm" for number in range(_FILES)]
        for number, file in enumerate(files):
            file.write_bytes(dicom_bytes(make_study(11, number, size=512)))
        alone = model_alone(checkpoint, [file.read_bytes() for file in files], encoder.max_batch_size, seconds)
        with running_endpoint(checkpoint, settings) as endpoint:
            load = Load(endpoint, folder, files, seconds, clients)
            load.run("warm")
            capacity, _ = load.run("capacity")
            per_s = float(capacity["answered_per_s"])
            shares = {
                f"load_{share}": load.run(f"load{share}", per_s * share / 100, seed=share)[0] for share in (50, 80)
            }
            overload, _ = load.run("overload", 2 * per_s, seed=2)
            killed = load.kill_one(per_s / 2) if encoders > 1 else None
    return {
        "settings": {"seconds": seconds, "cpus": cpus, "encoders": encoders, "clients": clients, "files": _FILES},
        "model_alone": {key: round(value, 2) for key, value in alone.items()},
        "share_of_forward": round(per_s / alone["forward_per_s"], 4),
        # What is left for the model where other parts have cores of their own.
        "share_of_encoder": round(1000 / alone["forward_per_s"] / capacity["cpu_ms_per_answer"]["encoder"], 4),
        "capacity": capacity,
        **shares,
        "overload": overload,
        "kill": killed,
    }


def main() -> None:
    """Measure, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=str(DEFAULT_CHECKPOINT))
    parser.add_argument("--preset", choices=get_args(Preset))
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--encoders", type=int, default=2)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--cpus", type=int, default=8)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    np.seterr(all="raise")
    with tempfile.TemporaryDirectory() as name:
        if given.preset:
            checkpoint = random_checkpoint(given.preset, given.image_size, Path(name))
        else:
            checkpoint = local_copy(find_checkpoint(Location.parse(given.checkpoint)))
        measured = measure(checkpoint, given.seconds, given.cpus, given.encoders, given.clients)
    write_result(given.out, {"preset": given.preset, **measured})


if __name__ == "__main__":
    main()
