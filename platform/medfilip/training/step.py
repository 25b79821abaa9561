"""One optimisation step as a function of model, batch and settings; nothing here knows where it runs.

Legend of tensor names: N images, T texts, D joint dimension; ``_G`` marks what was gathered over all processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from medfilip.findings.codes import Codebook
from medfilip.findings.ontology import Ontology
from medfilip.model.distributed import World, average_gradients, gather
from medfilip.model.dual_encoder import DualEncoder
from medfilip.model.objectives import infonce, soft_infonce, soft_sigmoid
from medfilip.similarity.codes import FindingTensors
from medfilip.similarity.factorised import similarity
from medfilip.similarity.tables import SimilarityTables, SimilarityWeights, build_tables
from medfilip.training.data import Batch
from medfilip.training.settings import Objective, TrainSettings


@dataclass(frozen=True)
class Task:
    """What is optimised: the objective and the targets it compares with."""

    objective: Objective
    weights: SimilarityWeights
    tables: SimilarityTables

    @classmethod
    def of(cls, settings: TrainSettings, ontology: Ontology, device: torch.device | str = "cpu") -> Task:
        """Build the similarity tables of an ontology on a device."""
        tables = build_tables(Codebook.of(ontology), settings.similarity)
        return cls(settings.objective, settings.similarity, tables.to(device))


def batch_loss(model: DualEncoder, batch: Batch, task: Task, world: World, *, bf16: bool = False) -> Tensor:
    """Compute the loss of the **global** batch, of which ``batch`` is this process's part.

    Every process returns the same value; after `average_gradients` every process holds the gradients that one process
    with the whole batch would have.
    """
    device = model.bias.device
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        image_ND = model.encode_image(batch.pixels_N1SS.to(device))
        text_TD = model.encode_text(batch.texts) if batch.texts else image_ND[:0]
    image_G, text_G = gather(image_ND.float(), world), gather(text_TD.float(), world)
    logits_NT = model.logits(image_G, text_G)

    view_G = gather(batch.view_N.to(device), world)
    packed_G = gather(batch.findings.packed().to(device), world)
    # Owners and told findings are positions within this process's part; both move by what lies before it.
    owner_G = gather(batch.owner_F.to(device) + _before(batch.view_N.to(device), world), world)
    told_G = gather(batch.text_finding_T.to(device) + _before(batch.owner_F.to(device), world), world)
    findings = FindingTensors.unpacked(packed_G)
    if task.objective == "infonce":
        own_NT = (torch.arange(len(image_G), device=device)[:, None] == owner_G[told_G][None, :]).float()
        return infonce(logits_NT, own_NT)
    target_NT, mask_NT = similarity(
        findings, owner_G, len(image_G), findings[told_G], tables=task.tables, weights=task.weights, view_N=view_G
    )
    objective = soft_sigmoid if task.objective == "soft_sigmoid" else soft_infonce
    return objective(logits_NT, target_NT, mask_NT)


def train_step(
    model: DualEncoder,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    task: Task,
    settings: TrainSettings,
    *,
    progress: float,
    world: World,
) -> dict[str, float]:
    """Make one step and return its loss, gradient norm and learning rate; ``progress`` runs from 0 to 1."""
    rate = settings.learning_rate * schedule(progress, settings.warmup)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss = batch_loss(model, batch, task, world, bf16=settings.precision == "bf16")
    loss.backward()  # type: ignore[no-untyped-call]
    average_gradients(model.parameters(), world)
    norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
    if bool(torch.isfinite(loss)) and bool(torch.isfinite(norm)):
        optimizer.step()
    return {"loss": float(loss.detach()), "gradient_norm": float(norm), "learning_rate": rate}


def schedule(progress: float, warmup: float) -> float:
    """Return the factor of the learning rate: a linear rise over ``warmup``, then half a cosine down to 0."""
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / max(1 - warmup, 1e-9)))


def make_optimizer(model: DualEncoder, settings: TrainSettings) -> torch.optim.AdamW:
    """Build AdamW without decay on norms, biases, embeddings of position, and the scale of the logits."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in _trainable(model):
        (decayed if parameter.ndim >= 2 and "embeddings" not in name else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98))


def _trainable(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad)


def _before(part: Tensor, world: World) -> int:
    """Count the rows that earlier processes hold."""
    lengths = gather(torch.tensor([len(part)], device=part.device), world)
    return int(lengths[: world.rank].sum())
