"""One of several processes that train together; run as a script by the tests."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import safetensors.torch
import torch
from torch import distributed as dist

from medfilip.model.distributed import World, average_gradients
from medfilip.training.loop import build_model, fit
from medfilip.training.order import rank_slice
from medfilip.training.reporter import LocalReporter
from medfilip.training.step import Task, batch_loss
from tests.unit.training.synthetic import settings, train_data


def gradients(world, objective):
    """Return loss and gradients of one global batch of 7, which two processes cannot share equally."""
    chosen = settings(objective=objective)
    data = train_data()
    model = build_model(chosen, data, world)
    rows = list(range(7))[rank_slice(7, world)]
    loss = batch_loss(model, data.train.batch(rows, epoch=0, settings=chosen), Task.of(chosen, data.ontology), world)
    loss.backward()
    average_gradients(model.parameters(), world)
    found = {name: value.grad for name, value in model.named_parameters()}
    return {"loss": loss.detach(), **found}


def train(world, folder):
    """Train two short epochs and return the losses."""
    reporter = LocalReporter(folder)
    fit(settings(), train_data(), world, reporter, folder)
    return [entry["loss"] for entry in reporter.history]


def main(rank, size, folder):
    """Join the group, compute, and leave the results in the folder."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    world = World.current()
    for objective in ("soft_sigmoid", "infonce"):
        safetensors.torch.save_file(gradients(world, objective), folder / f"{objective}-{rank}.safetensors")
    losses = train(world, folder / "run")
    (folder / f"losses-{rank}.json").write_text(json.dumps(losses))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
