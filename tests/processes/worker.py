"""One of several processes that train together; run as a script by the tests."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import safetensors.torch
import torch
from torch import distributed as dist

from medfilip.model.distributed import World, sum_gradients
from medfilip.model.objectives import OBJECTIVES
from medfilip.training.loop import build_model, fit
from medfilip.training.order import rank_slice
from medfilip.training.reporter import LocalReporter
from medfilip.training.sharding import shard, whole
from medfilip.training.step import Task, accumulate, clip_gradients
from tests.unit.training.synthetic import settings, train_data

CASES = {
    **{f"{objective}-{exchange}": {"objective": objective, "exchange": exchange}
       for objective in OBJECTIVES for exchange in ("gather", "ring")},
    "cached": {"objective": "soft_infonce", "micro_batch": 2},
    "divided": {"sharding": "fsdp"},
    "divided-cached": {"sharding": "fsdp", "micro_batch": 2},
}  # fmt: skip


def gradients(world, **changes):
    """Return loss, norm and gradients of one global batch of 7, which processes cannot share equally."""
    chosen = settings(loss_chunk=5, **changes)
    data = train_data()
    model = build_model(chosen, data, world)
    if chosen.sharding == "fsdp" and world.size > 1:
        shard(model, world)
    rows = list(range(7))[rank_slice(7, world)]
    batch = data.train.batch(rows, epoch=0, settings=chosen)
    loss = accumulate(model, batch, Task.of(chosen, data.ontology), world, micro_batch=chosen.micro_batch)
    sum_gradients([p for p in model.parameters() if chosen.sharding == "none" or p.ndim == 0], world)
    found = {name: whole(value.grad) for name, value in model.named_parameters()}
    return {"loss": loss, "norm": clip_gradients(model.parameters(), 1e9), **found}


def train(world, folder, **changes):
    """Train two short epochs and return the losses."""
    reporter = LocalReporter(folder)
    fit(settings(**changes), train_data(), world, reporter, folder)
    return [entry["loss"] for entry in reporter.history]


RUNS = {"plain": {}, "divided": {"sharding": "fsdp", "ema": 0.9}}


def main(rank, size, folder):
    """Join the group, compute, and leave the results in the folder."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    world = World.current()
    for name, changes in CASES.items():
        safetensors.torch.save_file(gradients(world, **changes), folder / f"{name}-{rank}.safetensors")
    runs = RUNS if size > 2 else {}  # torchrun trains with two: test_torchrun.py
    losses = {name: train(world, folder / f"run-{name}", **changes) for name, changes in runs.items()}
    (folder / f"losses-{rank}.json").write_text(json.dumps(losses))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
