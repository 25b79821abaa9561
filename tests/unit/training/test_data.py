"""Batches: repeatable, faithful to the pairs, read from published runs."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from medfilip import ErrorCode, MedfilipError
from medfilip.similarity.tables import VIEWS
from medfilip.storage.location import Location
from medfilip.storage.manifest import DatasetEntry, Manifest
from medfilip.storage.schemas import DATASETS
from medfilip.storage.shards import write_shard
from medfilip.training.data import vocabulary_texts
from medfilip.training.images import ShardedImages
from medfilip.training.settings import AugmentSettings
from medfilip.training.sources import load_pairs
from medfilip.training.step import augmented
from tests.unit.training.synthetic import (
    CODEBOOK,
    KNOWLEDGE,
    ONTOLOGY,
    SIZE,
    Pictures,
    pair_rows,
    pair_set,
    settings,
    studies,
    train_data,
)

SETTINGS = settings()


def loader(size):
    return lambda data: np.frombuffer(data, np.float32).reshape(1, size, size)


def publish(folder, datasets, **versions):
    """Publish datasets as a run, each in two shards where it has two rows."""
    run = Location.parse(folder)
    entries = {}
    for name, rows in datasets.items():
        schema, shards = DATASETS[name], []
        for number, part in enumerate((rows[: len(rows) // 2], rows[len(rows) // 2 :])):
            shards.append(write_shard(run, f"{name}/{number}.parquet", schema, schema.from_rows(part)))
        entries[name] = DatasetEntry(schema_version=schema.version, rows=len(rows), shards=tuple(shards))
    now = datetime.now(UTC)
    manifest = Manifest(
        job="test", run_id="r", config_fingerprint="c", code_version="v", config={}, datasets=entries,
        versions=versions, started_at=now, finished_at=now,
    ).with_fingerprint()  # fmt: skip
    (run / "manifest.json").write_bytes(manifest.model_dump_json().encode())
    return run, manifest


@pytest.fixture
def published(tmp_path):
    pixels, reports, _ = studies(8)
    rows, texts = pair_rows(reports)
    for number, row in enumerate(rows):
        row["image_shard"], row["image_row"] = divmod(number, 4)
        row["split"] = "validation" if number == 7 else "train"
    text_rows = [{"text_id": key, "text": text, "category": "x", "certainty": "present"} for key, text in texts.items()]
    images = [{"image_id": f"i{i}", "pixels": image.tobytes(), "split": "train"} for i, image in enumerate(pixels)]
    publish(tmp_path / "pairs", {"pairs": rows, "texts": text_rows}, ontology=ONTOLOGY.fingerprint)
    publish(tmp_path / "images", {"images": images})
    return tmp_path, pixels


def load(folder, **options):
    return load_pairs(
        str(folder / "pairs"), str(folder / "images"), SETTINGS, ontology=ONTOLOGY, knowledge=KNOWLEDGE,
        synthetic=True, loader=loader, **options,
    )  # fmt: skip


def test_pairs_texts_and_images_of_published_runs_come_together(published):
    folder, pixels = published
    data = load(folder)
    assert (len(data.train), len(data.validation)) == (7, 1)
    np.testing.assert_array_equal(data.train.pixels([6, 0]).numpy(), pixels[[6, 0]])
    np.testing.assert_array_equal(data.validation.pixels([0]).numpy(), pixels[[7]])


def test_pairs_of_another_ontology_are_refused(published):
    folder, _ = published
    publish(folder / "pairs", {"pairs": [], "texts": []}, ontology="0123")
    with pytest.raises(MedfilipError, match="ontology 0123") as caught:
        load(folder)
    assert caught.value.code == ErrorCode.SCHEMA_VERSION_MISMATCH


def test_no_training_pairs_is_said(published):
    folder, _ = published
    publish(folder / "pairs", {"pairs": [], "texts": []}, ontology=ONTOLOGY.fingerprint)
    with pytest.raises(MedfilipError) as caught:
        load(folder)
    assert caught.value.code == ErrorCode.NO_TRAINING_PAIRS


def test_texts_of_another_run_are_refused():
    rows, texts = pair_rows(studies(3)[1])
    texts.popitem()
    with pytest.raises(MedfilipError, match="1 text ids"):
        pair_set(rows, texts, Pictures([]))


def changed(batch, chosen=SETTINGS):
    return augmented(batch, chosen.augment, "cpu")


def test_a_batch_depends_on_unit_and_epoch_not_on_its_neighbours():
    pairs = train_data().train
    whole = pairs.batch([3, 5, 9], epoch=2, settings=SETTINGS)
    part = pairs.batch([5], epoch=2, settings=SETTINGS)
    assert torch.allclose(changed(whole)[1:2], changed(part), atol=1e-6)
    owners = whole.owner_F[whole.told_T]
    own = [text for text, owner in zip(whole.texts, owners.tolist(), strict=True) if owner == 1]
    assert own == [
        text for text, owner in zip(part.texts, part.owner_F[part.told_T].tolist(), strict=True) if not owner
    ]
    other = pairs.batch([5], epoch=3, settings=SETTINGS)
    assert not torch.allclose(changed(other), changed(part), atol=1e-6)


def test_every_text_tells_the_finding_it_is_said_to():
    pairs = train_data().train
    batch = pairs.batch(range(10), epoch=0, settings=SETTINGS)
    for text, finding in zip(batch.texts, batch.told_T.tolist(), strict=True):
        label = ONTOLOGY.label(CODEBOOK.categories[batch.findings.category_T[finding]])
        assert label in text
        assert text.startswith("no ") == (batch.findings.certainty_T[finding] == 1)
    own = batch.owner_F < len(batch)
    assert int(own.sum()) == sum(len(pairs.statements(unit)) for unit in range(10))
    assert len(batch.finding_texts) == len(batch.findings) == len(own)


def test_altered_texts_belong_to_nobody_and_differ_from_what_they_alter():
    pairs = train_data().train
    batch = pairs.batch(range(10), epoch=0, settings=settings(hard_negatives=3))
    altered = batch.owner_F == len(batch)
    assert altered.any() and altered[batch.told_T[-1]]
    stated = {tuple(row) for row in batch.findings[~altered].packed().tolist()}
    opposite = {(row[0], 1 - row[1]) for row in stated}
    for row in batch.findings[altered].packed().tolist():
        side_changed = (*row[:3], 1 - row[3], *row[4:])
        assert (row[0], row[1]) in opposite or side_changed in stated
    assert not (pairs.batch(range(10), epoch=0, settings=settings(hard_negatives=0)).owner_F == 10).any()
    assert not (pairs.batch(range(10), epoch=0, settings=SETTINGS, training=False).owner_F == 10).any()


def test_ranked_pairs_differ_in_side_or_severity_of_one_finding():
    pairs = train_data().train
    batch = pairs.batch(range(10), epoch=0, settings=settings(hard_negatives=3))
    assert len(batch.ranked_R3)
    for unit, own, altered in batch.ranked_R3.tolist():
        finding, other = (batch.findings[batch.told_T[[at]]] for at in (own, altered))
        assert batch.owner_F[batch.told_T[own]] == unit and batch.owner_F[batch.told_T[altered]] == len(batch)
        assert finding.category_T == other.category_T and finding.certainty_T == other.certainty_T
        assert (finding.severity_T != other.severity_T) ^ (finding.laterality_T != other.laterality_T)
    assert not len(pairs.batch(range(10), epoch=0, settings=SETTINGS, training=False).ranked_R3)


def test_variants_are_all_drawn_over_the_epochs_and_limited_in_number():
    pairs, chosen = train_data().train, settings(hard_negatives=0)
    texts = Counter(text for epoch in range(80) for text in pairs.batch([0], epoch=epoch, settings=chosen).texts)
    ids = {i for item in pairs.columns.statements_of(0) for i in item.text_ids}
    assert len(texts) == len(ids)
    assert len(pairs.batch([0], epoch=0, settings=settings(max_texts=1, hard_negatives=0)).texts) == 1
    evaluated = pairs.batch([0], epoch=5, settings=SETTINGS, training=False).texts
    assert evaluated == [pairs.texts_of(item)[0] for item in pairs.columns.statements_of(0)]


def test_rare_findings_are_drawn_first_where_not_all_are():
    common = [
        {"category": "pleural_effusion", "certainty": "absent"},
        {"category": "cardiomegaly", "certainty": "absent"},
    ]
    rare = {"category": "nodule", "certainty": "present"}
    pixels, _, _ = studies(40)
    rows = [[*common, rare] if number % 10 == 0 else common for number in range(40)]
    pairs = pair_set(*pair_rows(rows), Pictures(pixels))

    def share(balance):
        chosen = settings(max_texts=1, hard_negatives=0, text_balance=balance)
        told = [pairs.batch([0], epoch=epoch, settings=chosen) for epoch in range(300)]
        nodule = CODEBOOK.categories.index("nodule")
        return sum(int(batch.findings.category_T[batch.told_T[0]]) == nodule for batch in told) / 300

    assert abs(share(0.0) - 1 / 3) < 0.09
    assert abs(share(1.0) - 10 / 12) < 0.07


def test_a_flip_takes_sides_and_words_along():
    pairs = train_data().train
    # The picture is not symmetric, so that the mirrored one can be told from it.
    still = {"shift": 0, "scale": 0, "rotation": 0, "gamma": 0, "noise": 0}
    never, always, half = (
        settings(augment=AugmentSettings(**still, flip=flip), hard_negatives=0) for flip in (0, 1, 0.5)
    )
    plain, mirrored, some = (pairs.batch(range(10), epoch=0, settings=chosen) for chosen in (never, always, half))
    assert torch.allclose(changed(mirrored, always), changed(plain, never).flip(-1), atol=1e-4)
    swapped = torch.tensor([1, 0, 2, -1])  # left, right, bilateral, none: -1 takes the last
    assert torch.equal(mirrored.findings.laterality_T, swapped[plain.findings.laterality_T])
    assert (mirrored.findings.laterality_T < 2).any()
    for before, after in zip(plain.texts, mirrored.texts, strict=True):
        assert ("left" in before, "right" in before) == ("right" in after, "left" in after)
    assert 0 < int(some.flipped_I.sum()) < 10


def test_validation_images_are_not_augmented():
    pairs = train_data().train
    batch = pairs.batch([1, 2], epoch=0, settings=SETTINGS, training=False)
    assert torch.equal(changed(batch), pairs.pixels([1, 2]))


def two_views():
    """Two studies: a frontal and a lateral image, and a frontal one alone."""
    pixels, reports, _ = studies(3)
    rows, texts = pair_rows(reports)
    rows[1] |= {"study_id": "s0", "view": "lateral", "findings": rows[0]["findings"]}
    return rows, texts, Pictures(pixels)


def test_the_images_of_a_study_are_one_unit_with_every_view():
    pairs = pair_set(*two_views())
    batch = pairs.batch([0, 1], epoch=0, settings=SETTINGS, training=False)
    assert batch.unit_I.tolist() == [0, 0, 1] and len(batch) == 2
    assert batch.view_N.tolist() == [VIEWS.index("unknown"), VIEWS.index("frontal")]
    seen = {tuple(pairs.batch([0], epoch=epoch, settings=SETTINGS).view_N.tolist()) for epoch in range(40)}
    assert seen == {(VIEWS.index(view),) for view in ("frontal", "lateral", "unknown")}
    alone = pair_set(*two_views(), by_study=False)
    assert len(alone) == 3
    assert alone.batch([1], epoch=0, settings=SETTINGS).view_N.tolist() == [VIEWS.index("lateral")]


def test_a_study_with_many_images_shows_one_of_each_view_first():
    pixels, reports, _ = studies(4)
    rows, texts = pair_rows(reports)
    for row, view in zip(rows, ("frontal", "frontal", "lateral", "frontal"), strict=True):
        row |= {"study_id": "s", "view": view, "findings": rows[0]["findings"]}
    pairs = pair_set(rows, texts, Pictures(pixels))
    assert pairs.images_of(0, 2) == [0, 2] and pairs.images_of(0, 3) == [0, 1, 2] and pairs.images_of(0, 1) == [0]


def test_the_vocabulary_covers_every_category_and_the_corpus():
    data = train_data()
    texts = set(vocabulary_texts(data))
    assert set(data.train.all_texts()) <= texts
    assert {f"no {ONTOLOGY.label(name)}" for name in ONTOLOGY.categories} <= texts


def test_the_image_cache_is_bounded_and_gives_the_same_pixels(tmp_path):
    pixels, _, _ = studies(6)
    images = [{"image_id": f"i{i}", "pixels": np.tile(image, 16).tobytes()} for i, image in enumerate(pixels)]
    run, manifest = publish(tmp_path, {"images": images})
    decoded = []

    def decode(data):
        decoded.append(1)
        return np.tile(np.frombuffer(data, np.float32).reshape(1, SIZE, SIZE * 16), (1, 16, 1))

    source = ShardedImages(run, manifest, decode, cache_mb=2)  # one image takes 1 MB
    for row in (0, 1, 0, 1):
        np.testing.assert_array_equal(source.get(0, row)[0, :SIZE, :SIZE], pixels[row, 0])
    assert len(decoded) == 2
    source.get(1, 0)
    source.get(0, 0)
    assert len(decoded) == 4


@pytest.mark.parametrize(("shard", "row"), [(2, 0), (0, 3), (-1, 0)])
def test_a_pair_that_points_nowhere_is_named(tmp_path, shard, row):
    run, manifest = publish(tmp_path, {"images": [{"image_id": str(i), "pixels": b""} for i in range(6)]})
    with pytest.raises(MedfilipError, match="A pair points to") as caught:
        ShardedImages(run, manifest, lambda data: np.zeros((1, 2, 2))).get(shard, row)
    assert caught.value.code == ErrorCode.SCHEMA_MISMATCH


def test_a_changed_shard_is_refused(tmp_path):
    run, manifest = publish(tmp_path, {"images": [{"image_id": str(i), "pixels": b"x"} for i in range(2)]})
    (run / "images/0.parquet").write_bytes(b"PAR1")
    with pytest.raises(MedfilipError) as caught:
        ShardedImages(run, manifest, lambda data: np.zeros((1, 2, 2))).get(0, 0)
    assert caught.value.code == ErrorCode.SHARD_CORRUPT
