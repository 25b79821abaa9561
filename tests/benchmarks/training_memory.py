"""Memory of a training step against the global batch: whole, with cached gradients, with recomputed activations.

Each case runs in a process of its own; the peak of its second step is read, less what the process held between the two.
The cases of one batch run one after the other.

    python -m tests.benchmarks.training_memory --encoders small --size 128 --batches 32 128 512 --out FILE
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "platform")]

from tests.benchmarks.environment import write_result
from tests.benchmarks.training_step import Bench, parse

CASES = {"whole": [], "cached, parts of 16": ["--micro-batch", "16"]}


def one(arguments: list[str]) -> None:
    """Run two steps and print peak and time as JSON."""
    chosen = parse(arguments)
    bench = Bench(chosen)
    step = bench.platform(chosen.texts, chosen.hard_negatives)
    step(0)
    before = _reset(chosen.device)
    begun = time.perf_counter()
    step(1)
    bench.wait()
    print(json.dumps({"bytes": _peak(chosen.device) - before, "seconds": time.perf_counter() - begun}))


def _reset(device: str) -> int:
    """Let the peak begin anew, and return what is held now."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device == "cuda" else _status("VmHWM")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def main() -> None:
    """Run all cases and print a table."""
    if "--one" in sys.argv:
        one([argument for argument in sys.argv[1:] if argument != "--one"])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--out", type=Path)
    chosen, rest = parser.parse_known_args()
    results = []
    for batch in chosen.batches:
        for name, options in CASES.items():
            command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.training_memory", "--one"]
            done = subprocess.run(
                [*command, "--batch", str(batch), *options, *rest], capture_output=True, text=True, check=True
            )
            found = json.loads(done.stdout.splitlines()[-1])
            results.append({"batch": batch, "case": name, **found})
            print(
                f"{batch:6} studies  {name:20} {found['bytes'] / 2**20:9.0f} MB  {found['seconds']:8.2f} s", flush=True
            )
    write_result(chosen.out, {"encoders": rest, "results": results})


if __name__ == "__main__":
    main()
