"""What is learned from phantoms, without Ray: one line a configuration, as a table and as JSON with its environment.

Trains on the published runs of `medfilip inject` and `medfilip ingest` and tests on another corpus: another renderer
style and seed, so that no patient, no image and no manner of drawing is shared.

    python -m tests.benchmarks.phantom_training --train RUNS --test RUNS --configurations FILE --out FILE

``RUNS`` is the root folder of one corpus's jobs, with its phantom, ingest and inject runs in it. Each line of the
configurations is a JSON object: ``name`` and settings as for ``pretrain train.…``; with ``"shuffled": true`` each study
is told the report of another one, a control that must end at chance, as images without content must. What the plain
statistics of an image say, without any place, is measured by a linear probe that is trained with the drawn truth.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "platform")]

from medfilip.core.settings import load_settings
from medfilip.evaluation.zero_shot import evaluate_zero_shot
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.model.diagnoser import Diagnoser
from medfilip.model.distributed import World
from medfilip.storage.location import Location
from medfilip.storage.manifest import read_manifest
from medfilip.storage.schemas import IMAGES
from medfilip.storage.shards import iter_shards
from medfilip.training.images import preprocessing
from medfilip.training.loop import fit
from medfilip.training.pairs import Columns
from medfilip.training.reporter import LocalReporter
from medfilip.training.settings import TrainSettings
from medfilip.training.sources import load_pairs
from tests.benchmarks.environment import environment

MIN_IMAGES = 8
_SIDES = ("left", "right")


def newest(root: Path, job: str) -> Path:
    """Return the newest published run of a job below a root folder."""
    return max(root.glob(f"{job}-*/*/manifest.json"), key=lambda file: file.stat().st_mtime).parent


def read_test(root: Path, size: int) -> tuple[np.ndarray, list[str], list[dict]]:
    """Return images [N, 1, S, S], patients and the drawn truth of each image's study."""
    run = Location.parse(newest(root, "ingest"))
    manifest = read_manifest(run)
    reports = {
        row["study_id"]: row["report_id"] for t in iter_shards(run, manifest, "reports") for row in t.to_pylist()
    }
    lines = (newest(root, "phantom") / "corpus" / "truth.jsonl").read_text().splitlines()
    truth = {item["report_id"]: item["study_truth"] for item in map(json.loads, lines)}
    decode, images, patients, found = preprocessing(size), [], [], []
    for table in iter_shards(run, manifest, IMAGES.name, ["study_id", "patient_id", "view", "pixels"]):
        for row in table.to_pylist():
            if row["view"] != "lateral":
                images.append(decode(row["pixels"]))
                patients.append(row["patient_id"])
                found.append(truth[reports[row["study_id"]]])
    return np.stack(images), patients, found


def truth_matrix(truth: list[dict], names: list[str]) -> np.ndarray:
    """Return what is drawn, int64 [N, L]."""
    return np.array([[{"present": 1, "absent": 0}[item[name]["status"]] for name in names] for item in truth])


def statistics(pixels_N1SS: np.ndarray) -> np.ndarray:
    """Mean, deviation and nine quantiles of the grey values: what is left of an image without its places; [N, 11]."""
    flat = pixels_N1SS.reshape(len(pixels_N1SS), -1).astype(float)
    quantiles = np.quantile(flat, np.linspace(0.05, 0.95, 9), axis=1)
    return np.column_stack([flat.mean(axis=1), flat.std(axis=1), *quantiles])


def probe_statistics(train: tuple, test: tuple) -> dict:
    """AUROC of each label on the test corpus, from the statistics of its images alone."""
    names = sorted({name for item in test[2] for name in item})
    known_NL, truth_NL = truth_matrix(train[2], names), truth_matrix(test[2], names)
    features, test_features = statistics(train[0]), statistics(test[0])
    found = {}
    for at, name in enumerate(names):
        if min(truth_NL[:, at].sum(), (1 - truth_NL[:, at]).sum()) >= MIN_IMAGES:
            probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(features, known_NL[:, at])
            found[name] = float(roc_auc_score(truth_NL[:, at], probe.predict_proba(test_features)[:, 1]))
    return {"macro": float(np.mean(list(found.values()))), "labels": found}


def shuffled(columns: Columns) -> Columns:
    """Tell each unit the findings of another one."""
    starts = columns.finding_start_N1
    order = np.random.default_rng(0).permutation(len(columns))
    rows = [columns.statement_F[starts[unit] : starts[unit + 1]] for unit in order]
    return replace(columns, statement_F=np.concatenate(rows), finding_start_N1=np.cumsum([0, *map(len, rows)]))


def side_accuracy(diagnoser: Diagnoser, image_ND: np.ndarray, truth: list[dict], labels: list[str], seed: int) -> dict:
    """Whether "left X" beats "right X" where X is on one side only; mean over all such findings, with an interval."""
    ontology, right = load_ontology(), []
    for label in labels:
        rows = [n for n, item in enumerate(truth) if item.get(label, {}).get("laterality") in _SIDES]
        if not rows:
            continue
        bank = diagnoser.encode_labels([f"{side} {ontology.label(label)}" for side in _SIDES])
        scores = diagnoser.score(image_ND[rows], bank).positive_NL
        sides = np.array([_SIDES.index(truth[n][label]["laterality"]) for n in rows])
        right += (scores.argmax(axis=1) == sides).tolist()
    values = np.array(right, float)
    draws = np.random.default_rng(seed).choice(values, (500, len(values))).mean(axis=1)
    return {
        "value": values.mean(),
        "low": np.quantile(draws, 0.025),
        "high": np.quantile(draws, 0.975),
        "n": len(values),
    }


def evaluate(diagnoser: Diagnoser, test: tuple, unseen: list[str], resamples: int) -> dict:
    """Zero-shot numbers on the test corpus."""
    pixels, patients, truth = test
    image_ND = diagnoser.encode_images(pixels)
    names = sorted({name for item in truth for name in item})
    truth_NL = truth_matrix(truth, names)
    counts = truth_NL.sum(axis=0)
    enough = [name for name, count in zip(names, counts, strict=True) if min(count, len(truth) - count) >= MIN_IMAGES]

    def over(labels: list[str], image_ND: np.ndarray = image_ND) -> dict:
        columns = [names.index(label) for label in labels]
        scores = diagnoser.score(image_ND, diagnoser.encode_labels(labels))
        result = evaluate_zero_shot(scores, truth_NL[:, columns], patients, resamples=resamples)
        return {
            "pos": result.macro_pos_auroc.model_dump(), "pnc": result.macro_pnc_auroc.model_dump(),
            "labels": {
                item.label: [item.positives, round(item.pos_auroc.value, 3), round(item.pnc_auroc.value, 3)]
                for item in result.labels
            },
        }  # fmt: skip

    seen = [name for name in enough if name not in unseen]
    found = over(seen) | {"side": side_accuracy(diagnoser, image_ND, truth, seen, 0)}
    noise = np.random.default_rng(0).normal(size=pixels.shape).astype(np.float32)
    found["blank"] = over(seen, diagnoser.encode_images(noise))
    if unseen:
        found["unseen"] = over([name for name in unseen if name in enough])
    return found


def train_one(job: tuple) -> dict:
    """Train and evaluate one configuration."""
    name, changes, train_root, test_root, resamples, threads = job
    mixed = changes.pop("shuffled", False)
    torch.set_num_threads(threads)
    overrides = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    settings = load_settings(TrainSettings, "train", overrides=overrides, environment={})
    begun = time.perf_counter()
    data = load_pairs(
        str(newest(train_root, "inject")), str(newest(train_root, "ingest")), settings,
        ontology=load_ontology(), knowledge=load_knowledge(), synthetic=True,
    )  # fmt: skip
    if mixed:
        data.train.columns = shuffled(data.train.columns)
    with tempfile.TemporaryDirectory() as folder:
        result = fit(settings, data, World(), LocalReporter(Path(folder)), Path(folder))
        seconds = time.perf_counter() - begun
        device = "cuda" if torch.cuda.is_available() else "cpu"
        found = evaluate(
            Diagnoser.load(result.folder, device), read_test(test_root, settings.model.image_size),
            list(settings.unseen), resamples,
        )  # fmt: skip
    return {"name": name, "settings": changes, "seconds": seconds, "metrics": result.metrics, **found}


def line(item: dict) -> str:
    """One row of the table, at most 100 columns."""
    unseen = item.get("unseen")
    cells = [f"{item[key]['value']:.3f} [{item[key]['low']:.3f}, {item[key]['high']:.3f}]" for key in ("pos", "pnc")]
    tail = f"{unseen['pos']['value']:.2f}/{unseen['pnc']['value']:.2f}" if unseen else "-"
    return (
        f"{item['name'][:28]:28} {cells[0]} {cells[1]} {item['side']['value']:.3f} {tail:>9} {item['seconds']:6.0f} s"
    )


def main() -> None:
    """Run the configurations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--configurations", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resamples", type=int, default=300)
    chosen = parser.parse_args()
    size = 128
    probe = probe_statistics(read_test(chosen.train, size), read_test(chosen.test, size))
    print(f"linear probe on the statistics of an image: macro AUROC {probe['macro']:.3f}", flush=True)
    lines = [json.loads(text) for text in chosen.configurations.read_text().splitlines() if text.strip()]
    jobs = [(item.pop("name"), item, chosen.train, chosen.test, chosen.resamples, chosen.threads) for item in lines]
    print(f"{'configuration':28} {'POS':20} {'PNC':20} side  unseen POS/PNC   time", flush=True)
    results = []
    with ProcessPoolExecutor(chosen.processes, mp_context=get_context("spawn")) as pool:
        for result in pool.map(train_one, jobs):
            results.append(result)
            print(line(result), flush=True)
            chosen.out.write_text(
                json.dumps({"environment": environment(), "statistics": probe, "results": results}, indent=1)
            )


if __name__ == "__main__":
    main()
