"""Time and memory of a whole evaluation of many images, part by part, and of its intervals against a plain loop.

    python -m tests.benchmarks.evaluation_scale --images 10000 --out FILE

Embeddings are random and reports are drawn, so the numbers that come out mean nothing; how long they take and what they
hold in memory is that of a real corpus of this size, from embeddings to the page. The plain loop computes the same
intervals of one label resample by resample with scikit-learn.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "platform")]

from medfilip.evaluation.diagnosis import evaluate_diagnosis
from medfilip.evaluation.embedded import PARTS, EmbeddedImages, Options
from medfilip.evaluation.metrics import auprcs, aurocs, interval_of, patient_resamples, resample_weights
from medfilip.evaluation.report import write_report
from medfilip.evaluation.truth import COLUMNS, Truth
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.model.checkpoint import Versions
from medfilip.model.config import ModelConfig
from medfilip.model.diagnoser import Diagnoser
from medfilip.model.dual_encoder import DualEncoder
from medfilip.model.tokenizer import Tokenizer
from tests.benchmarks.environment import write_result

CATEGORIES = (
    "pleural_effusion", "consolidation", "cardiomegaly", "pneumothorax", "edema", "atelectasis", "nodule", "mass",
    "hyperinflation", "hypoinflation", "interstitial_opacity", "rib_fracture", "scoliosis", "hiatal_hernia",
)  # fmt: skip


def model() -> Diagnoser:
    """A small model with random weights."""
    config = ModelConfig(image_size=32, embed_dim=128, max_tokens=48, vocabulary=512)
    tokenizer = Tokenizer.train([*CATEGORIES, "no left right mild severe in the lobe"], vocabulary=512, max_tokens=48)
    torch.manual_seed(0)
    versions = Versions(load_ontology().fingerprint, load_knowledge().fingerprint, synthetic=True)
    return Diagnoser(DualEncoder(config, tokenizer), versions=versions, model_fingerprint="random")


def corpus(images: int, seed: int = 0) -> tuple[EmbeddedImages, Truth]:
    """Random embeddings, and findings of about the shape that reports have."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(images, 128)).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    studies = [f"s{at}" for at in range(images)]
    facts = {
        "image_id": studies, "study_id": studies, "patient_id": [f"p{at // 2}" for at in range(images)],
        "view": ["frontal"] * images, "view_position": rng.choice(["PA", "AP"], images).tolist(),
        "sex": rng.choice(["F", "M"], images).tolist(), "age_years": rng.integers(18, 90, images).tolist(),
        "source": ["one"] * images, "split": ["test"] * images,
    }  # fmt: skip
    rows = []
    for study in studies:
        for category in CATEGORIES:
            row: dict[str, Any] = dict.fromkeys(COLUMNS) | {"study_id": study, "category": category, "sites": []}
            row["certainty"] = str(rng.choice(["present", "absent", "uncertain"], p=[0.15, 0.8, 0.05]))
            if row["certainty"] == "present":
                row["laterality"] = rng.choice(["left", "right", None])
                row["severity"] = rng.choice(["mild", "moderate", "severe", None])
            rows.append(row)
    return EmbeddedImages(found, pa.table(facts)), Truth.of(rows, load_ontology())


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def intervals(images: int, resamples: int) -> dict[str, float]:
    """Seconds for AUROC and average precision of one label with intervals, both ways."""
    rng = np.random.default_rng(1)
    truth, score = rng.integers(0, 2, images), rng.normal(size=images)
    patients = [str(at // 2) for at in range(images)]

    def together() -> None:
        weights = resample_weights(patients, resamples)
        for metric in (aurocs, auprcs):
            interval_of(metric(truth, score, weights))

    def one_by_one() -> None:
        for rows in patient_resamples(patients, resamples):
            roc_auc_score(truth[rows], score[rows])
            average_precision_score(truth[rows], score[rows])

    return {"together": timed(together), "one_by_one": timed(one_by_one)}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args()
    diagnoser, knowledge = model(), load_knowledge()
    images, truth = corpus(chosen.images)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds: dict[str, float] = {}
    parts = [part for part in PARTS if part != "heat_maps"]
    for name, asked in [("zero_shot alone", ()), *((part, (part,)) for part in parts), ("everything", tuple(parts))]:
        options = Options(parts=asked, resamples=chosen.resamples)
        seconds[name] = timed(lambda options=options: evaluate_diagnosis(diagnoser, images, truth, knowledge, options))
        print(f"{name:18} {seconds[name]:7.1f} s", flush=True)
    result = evaluate_diagnosis(diagnoser, images, truth, knowledge, Options(parts=(), resamples=10))
    with tempfile.TemporaryDirectory() as folder:
        seconds["page"] = timed(
            lambda: write_report(Path(folder), title="t", facts={}, diagnosis=result, synthetic=True)
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    both = intervals(chosen.images, chosen.resamples)
    print(f"peak {peak:,.0f} MB ({before:,.0f} MB before); one label's intervals {both}")
    write_result(
        chosen.out,
        {
            "images": chosen.images, "labels": len(result.zero_shot.labels), "resamples": chosen.resamples,
            "seconds": seconds, "peak_mb": peak, "before_mb": before, "intervals_of_one_label_s": both,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
