"""The small world of `synthetic` as published runs of ``inject`` and ``ingest``, without either."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from medfilip.imaging.preprocess import png_encode
from medfilip.storage.location import Location
from medfilip.storage.manifest import DatasetEntry, Manifest
from medfilip.storage.schemas import DATASETS
from medfilip.storage.shards import write_shard
from tests.unit.training.synthetic import ONTOLOGY, SIZE, pair_rows, studies

SMALL = ("text_warmup=0", "prefetch=0", f"model.image_size={SIZE}", "model.embed_dim=32", "global_batch=8")


def publish(folder, datasets, **extra):
    run, entries = Location.parse(folder), {}
    for name, rows in datasets.items():
        schema = DATASETS[name]
        shard = write_shard(run, f"{name}/0.parquet", schema, schema.from_rows(rows))
        entries[name] = DatasetEntry(schema_version=schema.version, rows=len(rows), shards=(shard,))
    now = datetime.now(UTC)
    manifest = Manifest(
        job="test", run_id="r", config_fingerprint="c", code_version="v", config={}, datasets=entries,
        started_at=now, finished_at=now, **extra,
    ).with_fingerprint()  # fmt: skip
    (run / "manifest.json").write_bytes(manifest.model_dump_json().encode())


def publish_pairs(folder, train=16, validation=8):
    """Publish pairs and images and return the folders of the two runs."""
    pixels, reports, _ = studies(train + validation)
    rows, texts = pair_rows(reports)
    for number, row in enumerate(rows):
        row["split"] = "validation" if number >= train else "train"
    text_rows = [{"text_id": key, "text": text, "category": "x", "certainty": "present"} for key, text in texts.items()]
    grey = (np.clip(pixels + 2, 0, 6) * 40).astype(np.uint8)
    images = [{"image_id": f"i{i}", "pixels": png_encode(image[0]), "split": "train"} for i, image in enumerate(grey)]
    publish(folder / "pairs", {"pairs": rows, "texts": text_rows}, versions={"ontology": ONTOLOGY.fingerprint})
    publish(folder / "images", {"images": images}, counts={"synthetic_images": len(images)})
    return folder / "pairs", folder / "images"
