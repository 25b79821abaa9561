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
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "platform")]

from medfilip.evaluation.zero_shot import Metric, evaluate_zero_shot
from medfilip.findings.ontology import load_ontology
from medfilip.model.diagnoser import Diagnoser
from medfilip.storage.location import Location
from medfilip.storage.manifest import read_manifest
from medfilip.storage.schemas import IMAGES
from medfilip.storage.shards import iter_shards
from medfilip.training.images import preprocessing
from tests.benchmarks.training_runs import (
    add_arguments,
    interval,
    newest,
    read_configurations,
    run_all,
    statistics,
    train,
)

MIN_IMAGES = 8
_SIDES = ("left", "right")
_SHOWN: tuple[Metric, ...] = ("pos_auroc", "pnc_auroc")


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
            "pos": result.macro["pos_auroc"].model_dump(), "pnc": result.macro["pnc_auroc"].model_dump(),
            "labels": {
                item.label: [item.positives, *(round(item.metrics[name].value, 3) for name in _SHOWN)]
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
    run = train(train_root, changes, threads, synthetic=True, mixed=mixed)
    test = read_test(test_root, run.settings.model.image_size)
    found = evaluate(run.diagnoser, test, list(run.settings.unseen), resamples)
    return {
        "name": name, "settings": changes, "shuffled": mixed, "seconds": run.seconds, "metrics": run.metrics, **found
    }  # fmt: skip


def line(item: dict) -> str:
    """One row of the table, at most 100 columns."""
    unseen = item.get("unseen")
    cells = [interval(item[key]) for key in ("pos", "pnc")]
    tail = f"{unseen['pos']['value']:.2f}/{unseen['pnc']['value']:.2f}" if unseen else "-"
    return (
        f"{item['name'][:28]:28} {cells[0]} {cells[1]} {item['side']['value']:.3f} {tail:>9} {item['seconds']:6.0f} s"
    )


def main() -> None:
    """Run the configurations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    add_arguments(parser)
    parser.add_argument("--resamples", type=int, default=300)
    chosen = parser.parse_args()
    size = 128
    probe = probe_statistics(read_test(chosen.train, size), read_test(chosen.test, size))
    print(f"linear probe on the statistics of an image: macro AUROC {probe['macro']:.3f}", flush=True)
    listed = read_configurations(chosen.configurations)
    jobs = [(*item, chosen.train, chosen.test, chosen.resamples, chosen.threads) for item in listed]
    print(f"{'configuration':28} {'POS':20} {'PNC':20} side  unseen POS/PNC   time", flush=True)
    run_all(train_one, jobs, chosen, line, statistics=probe)


if __name__ == "__main__":
    main()
