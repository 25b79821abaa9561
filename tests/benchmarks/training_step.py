"""The whole training step against the same towers in bare loops: images a second, memory, matmul utilisation.

In one run and on the same batches, interleaved: the platform's step (augmentation, targets, loss in blocks, gradient
sum, clipping, AdamW); a bare PyTorch loop with the same towers, binary cross entropy on ready-made targets and AdamW;
and, with ``--open-clip FILE``, that loop with ``ClipLoss`` and ``SigLipLoss`` of open_clip, whose ``loss.py`` is loaded
from its file. Each variant sees the same pixels and tokens; texts are one a study where a loss allows no more.

    python -m tests.benchmarks.training_step --encoders small --size 128 --batch 32 --out FILE
    python -m tests.benchmarks.training_step --encoders vit-b16-bert --size 224 --batch 256 --precision bf16 --compile

``--open-clip`` takes ``open_clip/loss.py`` of the wheel open_clip_torch; its package does not import without
torchvision.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "platform")]

from medfilip.core.ids import hash64
from medfilip.findings.codes import Codebook
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.inject import training_texts
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.model.config import ModelConfig
from medfilip.model.distributed import World
from medfilip.storage.schemas import PAIRS
from medfilip.training import step as step_module
from medfilip.training.data import Batch, PairSet, TrainData
from medfilip.training.loop import build_model
from medfilip.training.pairs import build_columns
from medfilip.training.settings import TrainSettings
from medfilip.training.step import Task, augmented, make_optimizer, train_step
from tests.benchmarks.environment import environment

ONTOLOGY, KNOWLEDGE = load_ontology(), load_knowledge()
CODEBOOK = Codebook.of(ONTOLOGY)
_ROUNDS = 3


class Noise:
    """Images in memory; their content does not change the work."""

    def __init__(self, size: int) -> None:
        self.pixels = np.random.default_rng(0).normal(size=(64, 1, size, size)).astype(np.float32)

    def get(self, shard: int, row: int) -> np.ndarray:
        """Return an image."""
        return self.pixels[row % len(self.pixels)]


def pairs(count: int, size: int) -> TrainData:
    """Studies with eight findings each, as reports have them: a few categories are most of all."""
    random = np.random.default_rng(1)
    names = list(KNOWLEDGE.entries)[:60]
    share = 1 / np.arange(1, len(names) + 1)
    rows, texts = [], {}
    for number in range(count):
        findings = []
        for name in random.choice(names, 8, replace=False, p=share / share.sum()):
            finding: dict[str, Any] = {"category": str(name), "certainty": str(random.choice(["present", "absent"]))}
            if finding["certainty"] == "present":
                finding["laterality"] = str(random.choice(["left", "right", "bilateral"]))
                finding["severity"] = str(random.choice(["mild", "moderate", "severe"]))
            variants = training_texts(finding, KNOWLEDGE, ONTOLOGY)
            texts |= {hash64(text): text for text in variants}
            findings.append({**CODEBOOK.encode(finding), "text_ids": [hash64(text) for text in variants]})
        rows.append({
            "image_id": f"i{number}", "study_id": f"s{number}", "patient_id": f"p{number}", "view": "frontal",
            "split": "train", "image_shard": 0, "image_row": number, "findings": findings,
        })  # fmt: skip
    columns = build_columns([PAIRS.from_rows(rows)], by_study=True)
    found = PairSet(columns, texts, Noise(size), CODEBOOK, KNOWLEDGE)
    return TrainData(found, found, ONTOLOGY, KNOWLEDGE, synthetic=True)


def model_config(encoders: str, size: int, folder: Path) -> ModelConfig:
    """Presets by name, or ViT-B/16 with BERT-base, from their published sizes and random weights."""
    if encoders != "vit-b16-bert":
        return ModelConfig(preset=encoders, image_size=size)
    from transformers import BertConfig, ViTConfig

    return ModelConfig(
        image_size=size, embed_dim=512, max_tokens=64, vocabulary=4096, grid=2,
        vision_config=ViTConfig(image_size=size, patch_size=16).to_dict(),
        text_config=BertConfig(vocab_size=30522, attention_probs_dropout_prob=0.0, hidden_dropout_prob=0.0).to_dict(),
    )  # fmt: skip


class Bench:
    """The towers and one batch, and the variants of a step over them."""

    def __init__(self, chosen: argparse.Namespace) -> None:
        self.chosen = chosen
        self.device = torch.device(chosen.device)
        config = model_config(chosen.encoders, chosen.size, Path(chosen.out or ".").parent)
        self.settings = TrainSettings(
            model=config, precision=chosen.precision, global_batch=chosen.batch, max_texts=chosen.texts,
            hard_negatives=chosen.hard_negatives, text_warmup=0, micro_batch=chosen.micro_batch,
        )  # fmt: skip
        self.data = pairs(max(2 * chosen.batch, 64), chosen.size)
        self.world = World()
        self.task = Task.of(self.settings, ONTOLOGY, self.device)
        self.built = build_model(self.settings, self.data, self.world, self.device)

    def model(self) -> nn.Module:
        """Build the towers, compiled if asked for."""
        model = copy.deepcopy(self.built).train()
        if self.chosen.compile:
            model.image.compile()
            model.text.compile(dynamic=True)
        return model

    def batches(self, texts: int, hard_negatives: int) -> list[Batch]:
        """Draw a few batches, so that no variant can remember one."""
        settings = self.settings.model_copy(update={"max_texts": texts, "hard_negatives": hard_negatives})
        count = self.chosen.batch
        return [self.data.train.batch(range(count), epoch=epoch, settings=settings) for epoch in range(4)]

    def platform(self, texts: int, hard_negatives: int) -> Callable[[int], Tensor]:
        """Return the platform's step."""
        model, batches = self.model(), self.batches(texts, hard_negatives)
        optimizer = make_optimizer(model, self.settings)

        def step(number: int) -> Tensor:
            batch = batches[number % len(batches)]
            return train_step(model, batch, optimizer, self.task, self.settings, progress=0.3, world=self.world)[0]

        return step

    def bare(self, texts: int, hard_negatives: int, loss: Callable[..., Tensor] | None) -> Callable[[int], Tensor]:
        """Return a bare loop over the same batches: tokens and targets are ready before the clock starts."""
        model = self.model()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=self.device.type == "cuda")
        ready = [self._ready(model, batch) for batch in self.batches(texts, hard_negatives)]

        def step(number: int) -> Tensor:
            batch, tokens, target_NT, mask_NT = ready[number % len(ready)]
            optimizer.zero_grad(set_to_none=True)
            pixels = augmented(batch, self.settings.augment, self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
                image, text = model.encode_image(pixels), model.encode_tokens(tokens)
            image, text = image.float(), text.float()
            if loss is None:
                each = functional.binary_cross_entropy_with_logits(
                    model.scale() * image @ text.T + model.bias, target_NT, reduction="none"
                )
                value = (each * mask_NT).sum() / mask_NT.sum()
            else:
                value = loss(image, text, model.scale(), model.bias)
            value.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            return value.detach()

        return step

    def _ready(self, model: nn.Module, batch: Batch) -> tuple[Any, ...]:
        tokens = model.tokenizer.tokens(batch.texts, multiple=8)
        tokens = type(tokens)(*(value.to(self.device) for value in (tokens.ids_UK, tokens.mask_UK, tokens.position_T)))
        targets = step_module._targets(batch, self.task, self.world, self.device)
        return batch, tokens, *targets(slice(0, len(batch.texts)))

    def time(self, step: Callable[[int], Tensor], repeats: int) -> list[float]:
        """Return seconds of single steps."""
        found = []
        for number in range(repeats):
            self.wait()
            begun = time.perf_counter()
            step(number)
            self.wait()
            found.append(time.perf_counter() - begun)
        return found

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def matrix_seconds(self) -> float:
        """Time of the targets alone: all blocks of the similarity matrix of a batch."""
        batch = self.batches(self.chosen.texts, self.chosen.hard_negatives)[0]

        def step(number: int) -> Tensor:
            targets = step_module._targets(batch, self.task, self.world, self.device)
            return targets(slice(0, len(batch.texts)))[0]

        self.time(step, 2)
        return statistics.median(self.time(step, 10))

    def flops(self) -> int:
        """Floating-point operations of one platform step, counted."""
        step = self.platform(self.chosen.texts, self.chosen.hard_negatives)
        counter = FlopCounterMode(display=False)
        with counter:
            step(0)
        return counter.get_total_flops()


def matmul_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Measured FLOP/s of a large matrix product."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best = 0.0
    for _ in range(12):
        if device.type == "cuda":
            torch.cuda.synchronize()
        begun = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * side**3 / (time.perf_counter() - begun))
    return best


def open_clip_losses(file: Path) -> dict[str, Callable[..., Tensor]]:
    """Load ClipLoss and SigLipLoss from open_clip's file."""
    spec = importlib.util.spec_from_file_location("open_clip_loss", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    clip, siglip = module.ClipLoss(), module.SigLipLoss()
    return {
        "open_clip ClipLoss": lambda image, text, scale, bias: clip(image, text, scale),
        "open_clip SigLipLoss": siglip,
    }


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """Time all variants in turn, several rounds, so that a slow minute hits all of them."""
    bench = Bench(chosen)
    many, one = (chosen.texts, chosen.hard_negatives), (1, 0)
    variants: dict[str, Callable[[int], Tensor]] = {
        "platform": bench.platform(*many), "bare loop": bench.bare(*many, None),
    }  # fmt: skip
    if not chosen.short:
        variants |= {"platform, 1 text": bench.platform(*one), "bare loop, 1 text": bench.bare(*one, None)}
    if chosen.open_clip and not chosen.short:
        variants |= {name: bench.bare(*one, loss) for name, loss in open_clip_losses(chosen.open_clip).items()}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    memory: dict[str, int] = {}
    for step in variants.values():
        bench.time(step, 4 if not chosen.compile else 6)
    for _ in range(_ROUNDS):
        for name, step in variants.items():
            if bench.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
            seconds[name] += bench.time(step, chosen.repeats)
            if bench.device.type == "cuda":
                memory[name] = torch.cuda.max_memory_allocated() - before
    found = {
        name: {
            "seconds": statistics.median(values), "images_per_second": chosen.batch / statistics.median(values),
            "spread": [min(values), max(values)], "activation_bytes": memory.get(name),
        }
        for name, values in seconds.items()
    }  # fmt: skip
    del variants
    matrix = bench.matrix_seconds()
    flops = bench.flops() if not chosen.compile else None
    peak = matmul_peak(bench.device, torch.bfloat16 if chosen.precision == "bf16" else torch.float32)
    return {
        "variants": found, "matrix_seconds": matrix, "matrix_share": matrix / found["platform"]["seconds"],
        "flops": flops, "matmul_peak": peak,
        "utilisation": flops / found["platform"]["seconds"] / peak if flops else None,
    }  # fmt: skip


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", default="small", choices=["tiny", "small", "base", "vit-b16-bert"])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--hard-negatives", type=int, default=2)
    parser.add_argument("--micro-batch", type=int, default=0)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--short", action="store_true", help="the platform's step and the bare loop only")
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--open-clip", type=Path)
    parser.add_argument("--out", type=Path)
    return parser.parse_args(arguments)


def main() -> None:
    """Measure and print a table."""
    chosen = parse()
    result = measure(chosen)
    print(f"{chosen.encoders} {chosen.size} px, {chosen.batch} studies x {chosen.texts} texts, {chosen.precision}"
          f"{', compiled' if chosen.compile else ''}, {chosen.device}")  # fmt: skip
    for name, item in result["variants"].items():
        memory = f"{item['activation_bytes'] / 2**30:6.2f} GB" if item["activation_bytes"] else ""
        print(f"  {name:24} {item['seconds'] * 1e3:9.1f} ms {item['images_per_second']:9.1f} images/s {memory}")
    print(f"  targets {result['matrix_seconds'] * 1e3:.2f} ms = {result['matrix_share']:.2%} of a step")
    if result["utilisation"]:
        print(f"  {result['flops'] / 1e12:.2f} TFLOP a step, peak {result['matmul_peak'] / 1e12:.1f} TFLOP/s, "
              f"utilisation {result['utilisation']:.1%}")  # fmt: skip
    if chosen.out:
        gpu = torch.cuda.get_device_name() if chosen.device == "cuda" else None
        settings = {name: str(value) for name, value in vars(chosen).items()}
        chosen.out.write_text(
            json.dumps({"environment": environment() | {"gpu": gpu}, "settings": settings, **result}, indent=1)
        )


if __name__ == "__main__":
    main()
