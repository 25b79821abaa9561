"""How fast phantoms are drawn: frontal images with the lesions of a corpus, in one process and in two.

Usage: ``python -m tests.benchmarks.phantom_speed [--images 200] [--seed 3] [--out OUT.json]``. Only the drawing is
timed; the best of three rounds counts, since the machine may have other work.
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


def seconds(indices: range, *, seed: int, size: int) -> tuple[float, float]:
    """Draw the images of some studies; return when it began and ended, once noise tiles are made."""
    studies = sampled(indices, seed)
    for index, lesions, patient, exposure in studies[:8]:
        draw_study(lesions, patient, exposure, seed, index, size=size)
    begun = time.monotonic()
    for index, lesions, patient, exposure in studies:
        draw_study(lesions, patient, exposure, seed, index, size=size)
    return begun, time.monotonic()


def rate(images: int, seed: int, size: int, processes: int) -> float:
    """Images a second, all processes together."""
    share = images // processes
    parts = [range(number * share, (number + 1) * share) for number in range(processes)]
    work = partial(seconds, seed=seed, size=size)
    if processes == 1:
        spans = [work(parts[0])]
    else:
        with get_context("spawn").Pool(processes) as pool:
            spans = pool.map(work, parts, chunksize=1)
    return share * processes / max(end - begin for begin, end in spans)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    studies = sampled(range(given.images), given.seed)
    result: dict[str, object] = {
        "images": given.images,
        "lesions_an_image": round(sum(len(one[1]) for one in studies) / given.images, 2),
        "images_a_second": {
            f"{size} px": {
                f"{processes} process{'es' if processes > 1 else ''}": round(
                    max(rate(given.images, given.seed, size, processes) for _ in range(ROUNDS)), 1
                )
                for processes in PROCESSES
            }
            for size in SIZES
        },
    }
    write_result(given.out, result)


if __name__ == "__main__":
    main()
