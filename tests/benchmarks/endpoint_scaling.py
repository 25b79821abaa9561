"""How replicas follow the load: a step up and a step down, with the number of replicas and the waits, plotted.

Usage: ``python -m tests.benchmarks.endpoint_scaling [--seconds 40] [--rate 6] [--out OUT.json] [--plot OUT.png]``.
The encoder may have one to three replicas, the decoder one or two. Three phases of ``--seconds``: a fifth of
``--rate``, ``--rate`` requests per second with a slow model (``--preset``), and a fifth again, with short delays of
autoscaling.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, get_args

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from medfilip.model.config import Preset
from medfilip.phantom.corpus import dicom_bytes
from medfilip.phantom.study import make_study
from serve.cluster import LocalRaySettings
from serve.local import APPLICATION, running_endpoint
from serve.settings import DecoderSettings, EncoderSettings, ServeSettings
from tests.benchmarks.endpoint_load import Load, random_checkpoint
from tests.benchmarks.environment import write_result

_FILES = 8
_EVERY_S = 0.5


class ReplicaWatch:
    """Notes how many replicas of each part run, from its start to `stop`."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def stop(self) -> None:
        """End the watch."""
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        from ray import serve as rayserve

        while not self._ended.wait(_EVERY_S):
            parts = rayserve.status().applications[APPLICATION].deployments
            running = {name: int(part.replica_states.get("RUNNING", 0)) for name, part in parts.items()}
            self.seen.append({"clock": time.monotonic(), **running})


def measure(preset: Preset, image_size: int, rate: float, seconds: float) -> dict[str, Any]:
    """Run the three phases."""
    delays = {"upscale_delay_s": 3.0, "downscale_delay_s": 8.0}
    encoder = EncoderSettings(min_replicas=1, max_replicas=3, target_ongoing_requests=2, **delays)
    decoder = DecoderSettings(min_replicas=1, max_replicas=2, **delays)
    settings = ServeSettings(
        port=0, requests_per_minute=1_000_000, concurrent_requests=10_000, encoder=encoder, decoder=decoder,
        ray=LocalRaySettings(num_cpus=8, object_store_mb=512),
    )  # fmt: skip
    phases: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = [folder / f"{number}.dcm" for number in range(_FILES)]
        for number, file in enumerate(files):
            file.write_bytes(dicom_bytes(make_study(11, number, size=512)))
        checkpoint = random_checkpoint(preset, image_size, folder / "checkpoint")
        with running_endpoint(checkpoint, settings) as endpoint:
            load = Load(endpoint, folder, files, seconds)
            watch = ReplicaWatch()
            for phase, share in enumerate((0.2, 1.0, 0.2)):
                told, sent = load.run(f"phase{phase}", rate * share, seed=phase)
                waits = [(sent.began + due, ended - due, status) for due, ended, status in sent.requests]
                phases.append({"rate_per_s": rate * share, "began": sent.began, **told, "waits": waits})
            time.sleep(2 * delays["downscale_delay_s"])
            watch.stop()
    return {
        "settings": {"preset": preset, "image_size": image_size, "rate": rate, "seconds": seconds, **delays},
        "most_encoders": max(seen["encoder"] for seen in watch.seen),
        "last_encoders": watch.seen[-1]["encoder"],
        "phases": phases,
        "replicas": watch.seen,
    }


def plot(result: dict[str, Any], file: Path) -> None:
    """Draw the requests per second, the replicas and the waits over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    began = result["replicas"][0]["clock"]
    figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(8, 5), layout="constrained")
    clock = [seen["clock"] - began for seen in result["replicas"]]
    for part, style in (("encoder", "-"), ("decoder", "--")):
        above.step(clock, [seen[part] for seen in result["replicas"]], style, where="post", label=f"{part} replicas")
    above.set(ylabel="replicas", ylim=(0, 3.5), yticks=[0, 1, 2, 3])
    for phase in result["phases"]:
        start = phase["began"] - began
        above.axvspan(
            start, start + phase["seconds"], alpha=0.08 + 0.12 * (phase["rate_per_s"] == result["settings"]["rate"])
        )
        above.text(start, 3.2, f" {phase['rate_per_s']:.3g} requests/s", fontsize=8)
    above.legend(loc="center left", fontsize=8)
    waits = [wait for phase in result["phases"] for wait in phase["waits"]]
    answered = [(at - began, took) for at, took, status in waits if status == 200]
    refused = [(at - began, took) for at, took, status in waits if status != 200]
    below.plot(*zip(*answered, strict=True), ".", markersize=3, label="answered")
    if refused:
        below.plot(*zip(*refused, strict=True), "x", markersize=4, label="refused (503)")
    below.set(xlabel="seconds", ylabel="wait, seconds", yscale="log")
    below.legend(fontsize=8)
    figure.savefig(file, dpi=110)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=get_args(Preset), default="base")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--rate", type=float, default=6.0)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    result = measure(given.preset, given.image_size, given.rate, given.seconds)
    if given.plot:
        plot(result, given.plot)
    shown = [{key: value for key, value in phase.items() if key != "waits"} for phase in result["phases"]]
    write_result(given.out, {**result, "phases": shown, "replicas": len(result["replicas"])})


if __name__ == "__main__":
    main()
