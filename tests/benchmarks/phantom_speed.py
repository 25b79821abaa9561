"""How fast phantoms are drawn: frontal images with the lesions of a corpus, in one process and in two.

Usage: ``python -m tests.benchmarks.phantom_speed [--images 200] [--seed 3] [--out OUT.json]``. Only the drawing is
timed; the best of three rounds counts, and the time of the processors beside the clock's: the machine may have other
work.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from medfilip.phantom.draw import draw_study, exposure_of, patient_of
from medfilip.phantom.lesions import Lesion, sample_study
from medfilip.phantom.render.patient import Exposure, Patient
from tests.benchmarks.environment import write_result

ROUNDS = 3
SIZES = (256, 512)
PROCESSES = (1, 2)
Sampled = list[tuple[int, tuple[Lesion, ...], Patient, Exposure]]


def sampled(indices: range, seed: int) -> Sampled:
    """Draw what the studies show, outside the time that is measured."""
    found: Sampled = []
    for index in indices:
        exposure = exposure_of(seed, index)
        lesions = sample_study(seed, index, bedside=exposure.portable)
        found.append((index, lesions, patient_of(seed, index, "F" if index % 2 else "M", 20 + index % 70), exposure))
    return found


def drawn(indices: range, *, seed: int, size: int) -> tuple[float, float, float]:
    """Draw the images of some studies, with noise tiles made; return begin, end and seconds of the processor."""
    studies = sampled(indices, seed)
    for index, lesions, patient, exposure in studies[:8]:
        draw_study(lesions, patient, exposure, seed, index, size=size)
    begun, worked = time.monotonic(), time.process_time()
    for index, lesions, patient, exposure in studies:
        draw_study(lesions, patient, exposure, seed, index, size=size)
    return begun, time.monotonic(), time.process_time() - worked


def rates(images: int, seed: int, size: int, processes: int) -> tuple[float, float]:
    """Images a second by the clock, and by the time the processors gave: the same on a machine without other work."""
    share = images // processes
    parts = [range(number * share, (number + 1) * share) for number in range(processes)]
    work = partial(drawn, seed=seed, size=size)
    if processes == 1:
        spans = [work(parts[0])]
    else:
        with get_context("spawn").Pool(processes) as pool:
            spans = pool.map(work, parts, chunksize=1)
    total = share * processes
    clock = max(end for _, end, _ in spans) - min(begin for begin, _, _ in spans)
    return total / clock, sum(share / worked for _, _, worked in spans)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    studies = sampled(range(given.images), given.seed)
    measured: dict[str, dict[str, float]] = {}
    for size in SIZES:
        for processes in PROCESSES:
            found = [rates(given.images, given.seed, size, processes) for _ in range(ROUNDS)]
            measured[f"{size} px, {processes} process{'es' if processes > 1 else ''}"] = {
                "by_the_clock": round(max(clock for clock, _ in found), 1),
                "by_processor_time": round(max(worked for _, worked in found), 1),
            }
    lesions = round(sum(len(one[1]) for one in studies) / given.images, 2)
    result = {"images": given.images, "lesions_an_image": lesions, "images_a_second": measured}
    write_result(given.out, result)


if __name__ == "__main__":
    main()
