"""Memory and time of a training set of many rows: joined, made into tokens, loaded.

``python -m tests.benchmarks.distill_memory ROWS FOLDER [STAGE ...]``; each stage best in a process of its own, since
what is told is the largest memory that the process ever had, above what it had before the stage.
"""

from __future__ import annotations

import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

PART = 50_000
PHENOMENA = ("negation", "measure", "plain", "hedge", "device", "change", "list", "degree", "side", "normality")
REPLY = '{"f":[["nodule",["nodule"],"present",{"severity":["small"],"laterality":["right"],"sites":["upper lobe"]}]]}'


def parts(rows: int, folder: Path) -> None:
    """Write the parts that tasks would."""
    from medfilip.distillation.dataset import TRAIN, Row
    from medfilip.distillation.join import with_numbers

    folder.mkdir(parents=True, exist_ok=True)
    for begin in range(0, rows, PART):
        made = [
            Row(f"a small {n} mm nodule in the right upper lobe, unchanged since the study of {n % 977} days ago",
                None, REPLY, PHENOMENA[n % 10], "lexicon", TRAIN)
            for n in range(begin, min(begin + PART, rows))
        ]  # fmt: skip
        pq.write_table(with_numbers(made), folder / f"part-{begin:09d}.parquet", compression="zstd")


def join(rows: int, folder: Path) -> None:
    """Join them."""
    from medfilip.distillation.join import Mixture, Numbers, in_splits
    from medfilip.distillation.row_file import RowFileWriter

    files, numbers = sorted(folder.glob("part-*.parquet")), Numbers()
    for file in files:
        numbers.add(pq.read_table(file, columns=["key", "rank", "phenomenon"]))
    kept = numbers.choose([], 1.0, Counter())
    with RowFileWriter(folder / "set.parquet", {}) as writer:
        for table in in_splits(map(pq.read_table, files), kept, [], Mixture(0.02, 0.2, 1.0, 1)):
            writer.write(table)


def tokens(rows: int, folder: Path) -> None:
    """Make tokens of the training set."""
    from medfilip.distillation.prepare import prepare, save_prepared
    from medfilip.distillation.row_file import RowFile
    from medfilip.distillation.settings import DistillSettings

    read = RowFile(folder / "set.parquet")
    prepared = prepare(DistillSettings(), read, read.facts, data="benchmark", folder=folder / "prepared")
    save_prepared(prepared, folder / "prepared")


def load(rows: int, folder: Path) -> None:
    """Load the tokens and read the batches of an epoch."""
    from medfilip.distillation.encoding import epoch_batches
    from medfilip.distillation.prepare import load_prepared
    from medfilip.distillation.settings import DistillSettings

    prepared = load_prepared(folder / "prepared", DistillSettings())
    for rows_B in epoch_batches(prepared.train.lengths, 65_536, seed=0, epoch=0)[:200]:
        prepared.train.batch(np.sort(rows_B), 0)


STAGES: dict[str, Callable[[int, Path], None]] = {"parts": parts, "join": join, "tokens": tokens, "load": load}


def main() -> None:
    """Run stages and print a line for each."""
    import torch  # noqa: F401 - so that its own memory is not counted
    import transformers  # noqa: F401

    rows, folder = int(sys.argv[1]), Path(sys.argv[2])
    for name in sys.argv[3:] or STAGES:
        before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        STAGES[name](rows, folder)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
        sys.stdout.write(
            f"{name:7s} {rows:>10,d} rows  {grown / 2**20:8.0f} MiB  {grown / rows:7.1f} bytes a row"
            f"  {time.process_time() - begun:7.1f} s of CPU\n"
        )


if __name__ == "__main__":
    main()
