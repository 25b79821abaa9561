"""How long the similarity matrix takes and what memory it holds, by size of the global batch.

Usage: ``python -m tests.benchmarks.similarity_matrix [--device cpu|cuda] [--sizes 64 512 2048 8192] [--out OUT.json]
[--limit 3] [--nested 512] [--step]``. Each image has about eight findings and three texts. Compared are

- ``dense``: `medfilip.similarity.factorised.similarity`, every finding with every text;
- ``whole``: `Targets.of` and one block of everything, by mode;
- ``chunks``: `Targets.of` and blocks of 1,024 texts that are summed and dropped, by mode;
- ``nested``: Python lists and loops over images, texts and findings, as its authors describe the method (Liang et al.
  2025, III-C), on sizes it can bear; ``nested_given`` is handed all the inner products and only loops.

Forms whose N x T tables would exceed ``--limit`` GiB are left out on the CPU, where each is measured in a process of
its own with ``--threads`` threads: the peak is its resident memory above what it held before. On a GPU it is what the
allocator held.
``--step`` adds the share of a training step, against the forward and backward pass of a plain ViT-S/16 of 224 pixels.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from operator import mul
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from medfilip.findings.codes import Codebook
from medfilip.findings.ontology import load_ontology
from medfilip.similarity.codes import FindingTensors
from medfilip.similarity.factorised import similarity
from medfilip.similarity.tables import SimilarityMode, SimilarityTables, SimilarityWeights, build_tables
from medfilip.similarity.targets import Targets
from tests.benchmarks.environment import write_result

TEXTS_AN_IMAGE = 3
CATEGORIES = 60
DIMENSION = 384
COLUMNS = 1024
DENSE_TABLES, WHOLE_TABLES = 8, 3  # float32 tables of N x T that a form holds at its peak
MODES: tuple[SimilarityMode, ...] = get_args(SimilarityMode)
FORMS = ("dense", *(f"{form}:{mode}" for form in ("whole", "chunks") for mode in MODES), "nested", "nested_given")


@dataclass(frozen=True)
class GlobalBatch:
    """What the similarity matrix of a global batch is computed from."""

    findings: FindingTensors
    owner_F: Tensor
    images: int
    told_T: Tensor
    view_N: Tensor
    embedding_FD: Tensor
    tables: SimilarityTables

    @classmethod
    def draw(cls, images: int, device: str) -> GlobalBatch:
        """Draw findings with skewed frequencies: a few categories, sides and sites make most of them."""
        generator = torch.Generator().manual_seed(images)
        codebook = Codebook.of(load_ontology())
        count_N = torch.poisson(torch.full((images,), 8.0), generator=generator).long().clamp(min=TEXTS_AN_IMAGE)
        owner_F = torch.repeat_interleave(torch.arange(images), count_N)
        findings = _draw_findings(len(owner_F), codebook, generator)
        start_N = count_N.cumsum(0) - count_N
        told_T = (start_N[:, None] + torch.arange(TEXTS_AN_IMAGE)).flatten()
        view_N = (torch.rand(images, generator=generator) < 0.3).long()
        # The text of a finding follows from its codes; all texts share a long description and are therefore alike.
        text_F = torch.unique(findings.packed(), dim=0, return_inverse=True)[1]
        text_UD = torch.randn(int(text_F.max()) + 1, DIMENSION, generator=generator) + 1
        embedding_FD = nn.functional.normalize(text_UD, dim=1)[text_F]
        tensors = (owner_F, told_T, view_N, embedding_FD)
        owner_F, told_T, view_N, embedding_FD = (tensor.to(device) for tensor in tensors)
        tables = build_tables(codebook, SimilarityWeights()).to(device)
        return cls(findings.to(device), owner_F, images, told_T, view_N, embedding_FD, tables)

    def targets(self, mode: SimilarityMode) -> Targets:
        """Compare the distinct findings of the batch."""
        return Targets.of(
            self.findings, self.owner_F, self.images, self.told_T, tables=self.tables,
            weights=SimilarityWeights(mode=mode), view_N=self.view_N,
            embedding_FD=self.embedding_FD if mode == "text_cosine" else None,
        )  # fmt: skip


def _draw_findings(count: int, codebook: Codebook, generator: torch.Generator) -> FindingTensors:
    def skewed(size: int) -> Tensor:
        return torch.multinomial(1 / torch.arange(1, size + 1), count, replacement=True, generator=generator)

    def filled(value_F: Tensor, share: float) -> Tensor:
        return torch.where(torch.rand(count, generator=generator) < share, value_F, -1)

    certainty_F = torch.multinomial(torch.tensor([0.55, 0.38, 0.07]), count, replacement=True, generator=generator)
    is_plain_F = (certainty_F == 1) & (torch.rand(count, generator=generator) < 0.9)  # negations seldom name slots
    sites_FS = torch.zeros(count, len(codebook.sites), dtype=torch.bool)
    for share in (0.45, 0.12):
        site_F = skewed(len(codebook.sites))[:, None]
        sites_FS.scatter_(1, site_F, (torch.rand(count, 1, generator=generator) < share) & ~is_plain_F[:, None])
    severity_F = filled(skewed(len(codebook.severities)), 0.35).masked_fill(is_plain_F, -1)
    side_F = filled(skewed(3), 0.45).masked_fill(is_plain_F, -1)
    return FindingTensors(skewed(CATEGORIES), certainty_F, severity_F, side_F, sites_FS)


def nested(batch: GlobalBatch, given: list[list[float]] | None) -> list[list[float]]:
    """Targets by lists and loops; ``given`` holds the inner products of findings and texts, if they are at hand."""
    category, embedding = batch.findings.category_T.tolist(), batch.embedding_FD.tolist()
    told = batch.told_T.tolist()
    findings: list[list[int]] = [[] for _ in range(batch.images)]
    for position, image in enumerate(batch.owner_F.tolist()):
        findings[image].append(position)
    matrix = []
    for own in findings:
        row = []
        for column, text in enumerate(told):
            best = 0.0
            for finding in own:
                if category[finding] == category[text]:
                    if given is None:
                        alike = sum(map(mul, embedding[finding], embedding[text]))
                    else:
                        alike = given[finding][column]
                    best = max(best, alike)
            row.append(best)
        matrix.append(row)
    return matrix


def form_of(name: str, batch: GlobalBatch) -> Callable[[], Any]:
    """Return what a form does, as a function without arguments."""
    form, _, mode = name.partition(":")
    if form == "dense":
        texts = batch.findings[batch.told_T]
        return lambda: similarity(
            batch.findings, batch.owner_F, batch.images, texts, tables=batch.tables, weights=SimilarityWeights(),
            view_N=batch.view_N,
        )  # fmt: skip
    if form == "nested":
        return lambda: nested(batch, None)
    if form == "nested_given":
        given = (batch.embedding_FD @ batch.embedding_FD[batch.told_T].T).tolist()
        return lambda: nested(batch, given)
    chosen = next(known for known in MODES if known == mode)
    return (lambda: batch.targets(chosen).block()) if form == "whole" else (lambda: _in_chunks(batch, chosen))


def _in_chunks(batch: GlobalBatch, mode: SimilarityMode) -> Tensor:
    targets = batch.targets(mode)
    total = torch.zeros((), device=batch.owner_F.device)
    for start in range(0, targets.shape[1], COLUMNS):
        target_NT, mask_NT = targets.block(columns=slice(start, start + COLUMNS))
        total += (target_NT * mask_NT).sum()
    return total


def measure(name: str, images: int, device: str) -> dict[str, float]:
    """Return the median seconds, and the peak in MiB above what the batch holds."""
    batch = GlobalBatch.draw(images, device)
    act, on_gpu = form_of(name, batch), device == "cuda"
    if on_gpu:
        act()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if on_gpu else _peak_resident()
    # On a CPU the time of the processor counts: other work on the machine does not lengthen it.
    clock = time.perf_counter if on_gpu else time.process_time
    seconds: list[float] = []
    while len(seconds) < 3 or (sum(seconds) < 1 and len(seconds) < 20):
        begun = clock()
        act()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(clock() - begun)
        if sum(seconds) > 10:
            break
    peak = torch.cuda.max_memory_allocated() if on_gpu else _peak_resident()
    return {"seconds": statistics.median(seconds[1:] or seconds), "peak_mib": round((peak - before) / 2**20, 1)}


def _peak_resident() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def bearable(name: str, images: int, device: str, limit: float, nested_limit: int) -> bool:
    """Whether a form is measured at a size."""
    form = name.partition(":")[0]
    if form.startswith("nested"):
        return images <= nested_limit  # on the host of a GPU too, so that the ratio is of one run
    tables = {"dense": DENSE_TABLES, "whole": WHOLE_TABLES, "chunks": 0}[form]
    return device != "cpu" or tables * 4 * TEXTS_AN_IMAGE * images**2 <= limit * 2**30


def apart(name: str, images: int, device: str) -> dict[str, float]:
    """Measure on a CPU in a process of its own, since a process never gives its peak back."""
    if device == "cuda":
        return measure(name, images, device)
    command = [sys.executable, "-m", "tests.benchmarks.similarity_matrix", "--case", name, "--sizes", str(images)]
    command += ["--threads", str(torch.get_num_threads())]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    print(f"{images} {name}: {result}", file=sys.stderr)
    return result


def seconds_of_step(device: str) -> float:
    """Seconds an image of a forward and backward pass of ViT-S/16 at 224 pixels (bfloat16 on a GPU)."""
    layer = nn.TransformerEncoderLayer(384, 6, 1536, activation="gelu", batch_first=True, norm_first=True)
    model = nn.Sequential(nn.Linear(256, 384), nn.TransformerEncoder(layer, 12, enable_nested_tensor=False)).to(device)
    images = 256 if device == "cuda" else 8
    patches = torch.randn(images, 196, 256, device=device)
    clock = time.perf_counter if device == "cuda" else time.process_time
    seconds: list[float] = []
    for _ in range(4):
        begun = clock()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=device == "cuda"):
            loss = model(patches).float().square().mean()
        loss.backward()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - begun)
    return statistics.median(seconds[1:]) / images


def counts(images: int) -> dict[str, int]:
    """Return how much of a batch is distinct."""
    batch = GlobalBatch.draw(images, "cpu")
    targets = batch.targets("one_hot")
    findings = int(torch.unique(batch.findings.packed(), dim=0).shape[0])
    return {
        "images": images,
        "findings": len(batch.owner_F),
        "texts": len(batch.told_T),
        "distinct_findings": findings,
        "distinct_texts": targets.mask_NV.shape[1],
    }


def table(results: list[dict[str, Any]]) -> str:
    """Lay results out in at most 100 columns."""
    lines = []
    for result in results:
        lines.append(
            "{images:,} images, {findings:,} findings ({distinct_findings:,} distinct), {texts:,} texts "
            "({distinct_texts:,} distinct)".format(**result)
        )
        for name, value in result["forms"].items():
            lines.append(f"  {name:<20} {value['seconds'] * 1e3:>12,.1f} ms {value['peak_mib']:>10,.0f} MiB")
        for name, value in result["ratios"].items():
            lines.append(f"  {name:<48} {value:>12,.5g}")
    return "\n".join(lines)


def ratios(forms: dict[str, dict[str, float]], images: int, step: float | None) -> dict[str, float]:
    """Compare forms of one size with each other, and the default one with a training step."""

    def times(slow: str, fast: str) -> float:
        return forms[slow]["seconds"] / forms[fast]["seconds"] if {slow, fast} <= set(forms) else math.nan

    found = {
        "nested / whole:text_cosine": times("nested", "whole:text_cosine"),
        "nested_given / whole:text_cosine": times("nested_given", "whole:text_cosine"),
        "nested / whole:factorised": times("nested", "whole:factorised"),
        "dense / whole:factorised": times("dense", "whole:factorised"),
    }
    if step is not None:
        found["percent of a training step, chunks:factorised"] = (
            100 * forms["chunks:factorised"]["seconds"] / (step * images)
        )
    return {name: value for name, value in found.items() if not math.isnan(value)}


def main() -> None:
    """Measure and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256, 512, 2048, 8192])
    parser.add_argument("--limit", type=float, default=3.0)
    parser.add_argument("--nested", type=int, default=512, help="largest batch of the nested forms")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--step", action="store_true")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", choices=FORMS, help="measure this form alone, at the first size")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.case:
        print(json.dumps(measure(given.case, given.sizes[0], given.device)))
        return
    step = seconds_of_step(given.device) if given.step else None
    results: list[dict[str, Any]] = []
    for images in given.sizes:
        forms = {
            name: apart(name, images, given.device)
            for name in FORMS
            if bearable(name, images, given.device, given.limit, given.nested)
        }
        results.append({**counts(images), "forms": forms, "ratios": ratios(forms, images, step)})
    device = torch.cuda.get_device_name() if given.device == "cuda" else "cpu"
    head = {"device": device, "threads": given.threads, "load": os.getloadavg()}
    write_result(given.out, {**head, "seconds_an_image_of_a_step": step, "results": results})
    print(table(results))


if __name__ == "__main__":
    main()
