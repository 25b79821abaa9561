"""A small world to learn from: bright shapes on noise, told by findings as the pipeline would code them."""

from __future__ import annotations

import numpy as np

from medfilip.core.ids import hash64
from medfilip.findings.codes import Codebook
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.inject import training_texts
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.model.config import ModelConfig
from medfilip.storage.schemas import PAIRS
from medfilip.training.data import PairSet, TrainData
from medfilip.training.pairs import build_columns
from medfilip.training.settings import TrainSettings

SIZE = 32
CATEGORIES = ("pleural_effusion", "cardiomegaly", "nodule")
ONTOLOGY, KNOWLEDGE = load_ontology(), load_knowledge()
CODEBOOK = Codebook.of(ONTOLOGY)


class Pictures:
    """Images in memory, behind the interface of a published run."""

    def __init__(self, pixels):
        self.pixels = pixels

    def get(self, shard, row):
        return self.pixels[row]


def settings(**changes):
    model = ModelConfig(image_size=SIZE, embed_dim=32, max_tokens=48)
    return TrainSettings(**{"model": model, "epochs": 2, "global_batch": 8, "text_warmup": 0, "prefetch": 0, **changes})


def studies(count, seed=0):
    """Return pixels [N, 1, S, S], findings of each study, and truth [N, categories]."""
    rng = np.random.default_rng(seed)
    pixels = rng.normal(scale=0.3, size=(count, 1, SIZE, SIZE)).astype(np.float32)
    reports, truth = [], rng.random((count, len(CATEGORIES))) < 0.45
    for image, row in zip(pixels[:, 0], truth, strict=True):
        findings = []
        for category, present in zip(CATEGORIES, row, strict=True):
            side = str(rng.choice(["left", "right"]))
            if present:
                _draw(image, category, side, rng)
                sided = {} if category == "cardiomegaly" else {"laterality": side}
                findings.append({"category": category, "certainty": "present", **sided})
            elif rng.random() < 0.7:
                findings.append({"category": category, "certainty": "absent"})
        reports.append(findings)
    return pixels, reports, truth.astype(np.int64)


def _draw(image, category, side, rng):
    # The patient's left is on the right of the picture.
    at = slice(SIZE // 2, None) if side == "left" else slice(0, SIZE // 2)
    if category == "pleural_effusion":
        image[-8:, at] += 1.5
    elif category == "cardiomegaly":
        image[12:22, 9:23] += 1.5
    else:
        row, column = int(rng.integers(2, 9)), int(rng.integers(2, SIZE // 2 - 5))
        image[row : row + 4, at][:, column : column + 4] += 3


def pair_rows(reports, split="train"):
    """Return rows of ``pairs`` and the texts they refer to."""
    texts, rows = {}, []
    for number, findings in enumerate(reports):
        coded = []
        for finding in findings:
            variants = training_texts(finding, KNOWLEDGE, ONTOLOGY)
            texts |= {hash64(text): text for text in variants}
            coded.append({**CODEBOOK.encode(finding), "text_ids": [hash64(text) for text in variants]})
        rows.append(
            {
                "image_id": f"i{number}", "study_id": f"s{number}", "patient_id": f"p{number}", "view": "frontal",
                "split": split, "image_shard": 0, "image_row": number, "findings": coded,
            }
        )  # fmt: skip
    return rows, texts


def pair_set(rows, texts, images, *, by_study=True):
    """Return the pairs of some rows."""
    columns = build_columns([PAIRS.from_rows(rows)], by_study=by_study)
    return PairSet(columns, texts, images, CODEBOOK, KNOWLEDGE)


def train_data(count=20, validation=10, seed=0):
    def pairs(number, seed):
        pixels, reports, _ = studies(number, seed)
        return pair_set(*pair_rows(reports), Pictures(pixels))

    return TrainData(pairs(count, seed), pairs(validation, seed + 1), ONTOLOGY, KNOWLEDGE, synthetic=True)
