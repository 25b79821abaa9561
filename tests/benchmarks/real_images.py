"""Real radiographs of several collections: what is learned within each, and how far the collection itself is learned.

The published jobs read the images and a report that is written from each image's labels, patients are split, and the
platform's objective is trained beside others at equal steps and seeds. Labels are confounded with collections, so an
AUROC is only ever taken within one; beside it stands a linear probe that guesses the collection from the embedding,
and from the plain statistics of the image.

    python -m tests.benchmarks.real_images --images FOLDER --root RUNS --configurations FILE --out FILE

``FOLDER`` holds ``metadata.parquet`` (image_path, source, patient_id, image_id, view, finding_labels) and the images;
the jobs write below ``RUNS``. Each line of the configurations is a JSON object: ``name`` and settings as for
``pretrain train.…``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "platform")]

from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medfilip.core.settings import load_settings
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

MIN_POSITIVES = 5
RESAMPLES = 300
NO_CLAIM = ("nih14_64px",)
"""Collections that are shown and left out of the mean: few patients, one of them with sixty images."""
_PHRASES = {
    "Bacterial Pneumonia": "bacterial pneumonia", "Viral Pneumonia": "viral pneumonia", "Pneumonia": "pneumonia",
    "COVID-19": "COVID-19 pneumonia", "ARDS": "airspace disease", "Hernia": "hiatal hernia", "Effusion":
    "pleural effusion", "Pleural_Thickening": "pleural thickening", "Infiltration": "infiltrate", "Fibrosis":
    "pulmonary fibrosis", "Streptococcus": "bacterial pneumonia", "Klebsiella": "bacterial pneumonia", "E.Coli":
    "bacterial pneumonia", "Bacterial": "bacterial pneumonia", "Pneumocystis": "pneumonia", "Lipoid": "pneumonia",
}  # fmt: skip
"""How a report names the labels of these collections; the others are named as they are."""

Truth = tuple[str, NDArray[np.int64]]
"""A label, and 1, 0 or -1 (not to be scored) for each image."""


def said(labels: Sequence[str]) -> list[str]:
    """Return the findings that labels stand for, the general one left out beside a more special one."""
    named = list(dict.fromkeys(_PHRASES.get(label, label.replace("_", " ").lower()) for label in labels))
    special = [name for name in named if name != "pneumonia"]
    return special if any("pneumonia" in name for name in special) else named


def report(row: dict[str, Any]) -> str:
    """Write the report of an image: its labels as sentences."""
    if row["finding_labels"] == ["No Finding"]:
        return "FINDINGS: No pneumonia. No focal consolidation, pleural effusion or pneumothorax. Normal heart size."
    sentences = [name[0].upper() + name[1:] + "." for name in said(row["finding_labels"])]
    return "FINDINGS: " + " ".join(sentences) if sentences else ""


def prepare(folder: Path, root: Path, rows: list[dict[str, Any]]) -> None:
    """Run ingest, extract and inject on the images and their reports, as a user would."""
    from pipelines.job import JOBS
    from pipelines.runtime import RaySettings
    from serve.cluster import ray_session

    root.mkdir(parents=True, exist_ok=True)
    kept = [row for row in rows if report(row)]
    table = pa.table(
        {
            "path": [row["image_path"] for row in kept],
            "patient_id": [row["patient_id"] for row in kept],
            "study_id": [row["image_id"] for row in kept],
            "view": [{"L": "lateral"}.get(row["view"], row["view"].split()[0]) for row in kept],
            "source": [row["source"] for row in kept],
            "report": [report(row) for row in kept],
        }
    )
    pa_csv.write_csv(table, root / "images.csv")

    def job(name: str, *overrides: str) -> str:
        module = JOBS[name].load()
        outcome = module.run(
            load_settings(module.SETTINGS, name, overrides=[*overrides, f"root={root}"]), new_run=False
        )
        return str(outcome.location)

    with ray_session(RaySettings()):
        ingested = job(
            "ingest", f"images={folder}", "image_kind=table", f"image_table={root / 'images.csv'}", "store_size=256",
            "split.train=0.6", "split.validation=0.1", "split.test=0.3", "keep_report_ids=true", "quiet=true",
        )  # fmt: skip
        found = job("extract", f"reports={ingested}", "quiet=true")
        job("inject", f"findings={found}", f"images={ingested}")


def read_test(root: Path, size: int) -> tuple[NDArray[np.float32], list[dict[str, Any]]]:
    """Return the frontal test images [N, 1, S, S] and their rows."""
    run = Location.parse(newest(root, "ingest"))
    manifest = read_manifest(run)
    reports = {r["study_id"]: r["report_id"] for t in iter_shards(run, manifest, "reports") for r in t.to_pylist()}
    decode, images, rows = preprocessing(size), [], []
    for table in iter_shards(run, manifest, IMAGES.name):
        for row in table.to_pylist():
            if row["split"] == "test" and row["view"] != "lateral":
                images.append(decode(row.pop("pixels")))
                rows.append(row | {"listed": reports[row["study_id"]]})
    return np.stack(images), rows


def truths(labels_N: list[list[str]]) -> list[Truth]:
    """Return what can be asked within one collection, each with enough images on both sides."""
    names = sorted({name for labels in labels_N for name in labels if name != "no finding"})
    asked = [(name, np.array([int(name in labels) for labels in labels_N])) for name in names]
    sick_N = np.array([any("pneumonia" in name for name in labels) for labels in labels_N])
    if "bacterial pneumonia" in names and "viral pneumonia" in names:
        # Against each other: against healthy lungs either is an easy task.
        asked = [
            (name, np.where(sick_N, truth_N, -1)) if "pneumonia" in name else (name, truth_N) for name, truth_N in asked
        ]
        asked.append(("pneumonia", sick_N.astype(int)))
    return [
        (name, truth_N) for name, truth_N in asked
        if min((truth_N == 1).sum(), (truth_N == 0).sum()) >= MIN_POSITIVES
    ]  # fmt: skip


def auroc(scores_N: NDArray[Any], truth_N: NDArray[np.int64], weight_N: NDArray[np.int64] | None = None) -> float:
    """Area under the curve over what is to be scored; not a number if one side is empty."""
    kept = truth_N >= 0 if weight_N is None else (truth_N >= 0) & (weight_N > 0)
    if len(set(truth_N[kept])) < 2:
        return float("nan")
    return float(
        roc_auc_score(truth_N[kept], scores_N[kept], sample_weight=None if weight_N is None else weight_N[kept])
    )


def within_sources(
    scores: dict[str, NDArray[Any]], by_source: dict[str, tuple[NDArray[np.int64], list[Truth]]], patients: list[str]
) -> dict[str, Any]:
    """AUROC of each label in each collection, the mean of each collection and the mean of these, with intervals."""

    def means(weight_N: NDArray[np.int64] | None) -> dict[str, float]:
        found = {}
        for source, (at, asked) in by_source.items():
            values = [
                auroc(scores[name][at], truth, None if weight_N is None else weight_N[at]) for name, truth in asked
            ]
            found[source] = float(np.nanmean(values))
        claimed = [value for source, value in found.items() if source not in NO_CLAIM]
        return found | {"macro": float(np.mean(claimed))}

    people = sorted(set(patients))
    person_N, random = np.searchsorted(people, patients), np.random.default_rng(0)
    drawn = [
        means(np.bincount(random.integers(0, len(people), len(people)), minlength=len(people))[person_N])
        for _ in range(RESAMPLES)
    ]
    labels = {
        source: {name: [int((truth == 1).sum()), round(auroc(scores[name][at], truth), 3)] for name, truth in asked}
        for source, (at, asked) in by_source.items()
    }
    found: dict[str, Any] = {}
    for key, value in means(None).items():
        low, high = np.nanquantile([draw[key] for draw in drawn], [0.025, 0.975])
        found[key] = {"value": value, "low": low, "high": high, "labels": labels.get(key, {})}
    return found


def guess_source(features_ND: NDArray[Any], sources: list[str], patients: list[str]) -> float:
    """Balanced accuracy of a linear probe that guesses the collection; patients are kept together."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced"))
    guessed = cross_val_predict(probe, features_ND, sources, groups=patients, cv=GroupKFold(5))
    return float(balanced_accuracy_score(sources, guessed))


def train_one(job: tuple) -> dict[str, Any]:
    """Train and evaluate one configuration."""
    name, changes, root, rows, threads = job
    run = train(root, changes, threads, synthetic=False)
    diagnoser = run.diagnoser
    pixels, found = read_test(root, run.settings.model.image_size)
    image_ND = diagnoser.encode_images(pixels)
    sources, patients = [row["source"] for row in found], [row["patient_id"] for row in found]
    labels_N = [said(rows[row["listed"]]["finding_labels"]) for row in found]
    by_source = {}
    for source in sorted(set(sources)):
        at = np.array([n for n, one in enumerate(sources) if one == source])
        asked = truths([labels_N[n] for n in at])
        if asked:
            by_source[source] = (at, asked)
    names = sorted({label for _, asked in by_source.values() for label, _ in asked})
    scored = diagnoser.score(image_ND, diagnoser.encode_labels(names))
    columns = {
        "pos": {label: scored.positive_NL[:, at] for at, label in enumerate(names)},
        "pnc": {label: scored.margins[:, at] for at, label in enumerate(names)},
    }
    return {
        "name": name, "settings": changes, "seconds": run.seconds, "train_studies": run.studies, "test": len(found),
        **{key: within_sources(values, by_source, patients) for key, values in columns.items()},
        "guessed_source": {
            "embedding": guess_source(image_ND, sources, patients),
            "statistics": guess_source(statistics(pixels), sources, patients),
            "chance": 1 / len(set(sources)),
        },
    }  # fmt: skip


def line(item: dict[str, Any]) -> str:
    """One row of the table."""
    cells = [interval(item[key]["macro"]) for key in ("pos", "pnc")]
    each = " ".join(f"{key}={value['value']:.2f}" for key, value in item["pos"].items() if key != "macro")
    guessed = item["guessed_source"]
    return f"{item['name'][:20]:20} {cells[0]} {cells[1]} source {guessed['embedding']:.2f}  {each}"


def main() -> None:
    """Prepare the data once and run the configurations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    add_arguments(parser)
    chosen = parser.parse_args()
    images = pq.read_table(chosen.images / "metadata.parquet").to_pylist()
    prepare(chosen.images, chosen.root, images)
    rows = {row["image_id"]: row for row in images}
    listed = read_configurations(chosen.configurations)
    print(f"{'configuration':20} {'POS':20} {'PNC':20}", flush=True)
    run_all(train_one, [(*item, chosen.root, rows, chosen.threads) for item in listed], chosen, line)


if __name__ == "__main__":
    main()
