"""Retrieval both ways: the statements of an image, the images of a statement, the report of an image.

Two levels, since they answer different questions:

``statement``
    Candidates are the distinct present findings of the test studies ("small left pleural effusion"), right is what the
    image's own study states. Relevance is also graded: by the semantic similarity matrix (method, section 4), so that
    the other side of the right finding is better than another finding.
``report``
    Candidates are whole studies, each as the mean of the texts of all its findings, the absent ones too. Studies that
    state the same are equally right; their number is reported, since a corpus of normal studies cannot be told apart.

A query without a right candidate does not count. Images of intervals are resampled by patient, statements one by one.

Legend of tensor names: Q queries, C candidates, N images, T texts, S studies, F findings, D joint dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medfilip.core.fingerprint import canonical_json
from medfilip.evaluation.metrics import Floats, Interval, divided, interval_of, resample_weights, weighted_means
from medfilip.findings.codes import CERTAINTIES, Codebook
from medfilip.findings.finding import Certainty
from medfilip.model.diagnoser import FloatArray
from medfilip.similarity.codes import FindingTensors
from medfilip.similarity.tables import SimilarityWeights, build_tables
from medfilip.similarity.targets import Targets

Direction = Literal["image_to_statement", "statement_to_image", "image_to_report", "report_to_image"]
RECALL_AT = (1, 5, 10)
NDCG_AT = 10
_BLOCK = 256
_PRESENT = CERTAINTIES.index(Certainty.PRESENT)


class RetrievalResult(BaseModel):
    """Numbers of one direction.

    Attributes
    ----------
    recall
        k → share of the queries with a right candidate among the best k.
    chance
        The same for a random order.
    mean_average_precision, ndcg
        ``ndcg`` (at 10, graded) of the statement level only.
    distinct_reports
        How many of the candidates of the report level differ.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    direction: Direction
    queries: int
    candidates: int
    recall: dict[int, Interval]
    chance: dict[int, float]
    mean_average_precision: Interval
    ndcg: Interval | None = None
    distinct_reports: int | None = None


@dataclass(frozen=True)
class Statements:
    """What the studies of N images state.

    Attributes
    ----------
    of_image
        Of each image, the codes of its study's findings.
    text
        Writes the text of a finding from its code.
    """

    of_image: Sequence[Sequence[Mapping[str, object]]]
    codebook: Codebook
    text: Callable[[Mapping[str, object]], str]


def evaluate_retrieval(
    image_ND: FloatArray,
    statements: Statements,
    encode_text: Callable[[Sequence[str]], FloatArray],
    patients: Sequence[str],
    *,
    weights: SimilarityWeights | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[RetrievalResult, ...]:
    """Evaluate all directions for which there is anything to retrieve; see the module's text."""
    patients_N = np.asarray(patients)
    found = _statement_level(image_ND, statements, encode_text, patients_N, weights, resamples, seed)
    return (*found, *_report_level(image_ND, statements, encode_text, patients_N, resamples, seed))


def _statement_level(
    image_ND: FloatArray, statements: Statements, encode_text: Callable[[Sequence[str]], FloatArray],
    patients_N: NDArray[np.str_], weights: SimilarityWeights | None, resamples: int, seed: int,
) -> list[RetrievalResult]:  # fmt: skip
    keys = [[canonical_json(code) for code in codes if code["certainty"] == _PRESENT] for codes in statements.of_image]
    rows = [row for row, own in enumerate(keys) if own]
    codes = {
        canonical_json(code): code for row in rows for code in statements.of_image[row] if code["certainty"] == _PRESENT
    }
    if len(codes) < 2 or len(rows) < 2:
        return []
    column = {key: at for at, key in enumerate(codes)}
    right_NC = np.zeros((len(rows), len(codes)), bool)
    for at, row in enumerate(rows):
        right_NC[at, [column[key] for key in keys[row]]] = True
    text_CD = encode_text([statements.text(code) for code in codes.values()])
    gain_NC = _graded([statements.of_image[row] for row in rows], list(codes.values()), statements.codebook, weights)
    image_ND, patients_N = image_ND[rows], patients_N[rows]
    by_image = resample_weights(patients_N.tolist(), resamples, seed)
    by_text = resample_weights([str(at) for at in range(len(codes))], resamples, seed)
    return [
        _direction("image_to_statement", image_ND, text_CD, right_NC, by_image, gain_NC),
        _direction("statement_to_image", text_CD, image_ND, right_NC.T, by_text, gain_NC.T),
    ]


def _report_level(
    image_ND: FloatArray, statements: Statements, encode_text: Callable[[Sequence[str]], FloatArray],
    patients_N: NDArray[np.str_], resamples: int, seed: int,
) -> list[RetrievalResult]:  # fmt: skip
    rows = [row for row, codes in enumerate(statements.of_image) if codes]
    if len(rows) < 2:
        return []
    texts: dict[str, int] = {}
    reports: dict[str, list[int]] = {}
    own = []
    for row in rows:
        stated = sorted({statements.text(code) for code in statements.of_image[row]})
        key = "\n".join(stated)
        reports.setdefault(key, [texts.setdefault(text, len(texts)) for text in stated])
        own.append(key)
    text_TD = encode_text(list(texts))
    number = {key: at for at, key in enumerate(reports)}
    mean_SD = np.stack([text_TD[members].mean(axis=0) for members in reports.values()])
    mean_SD /= np.linalg.norm(mean_SD, axis=1, keepdims=True).clip(1e-12)
    of_row = np.array([number[key] for key in own])
    right_NS = of_row[:, None] == np.arange(len(reports))
    by_image = resample_weights(patients_N[rows].tolist(), resamples, seed)
    by_report = resample_weights([str(at) for at in range(len(reports))], resamples, seed)
    both = (
        _direction("image_to_report", image_ND[rows], mean_SD, right_NS, by_image),
        _direction("report_to_image", mean_SD, image_ND[rows], right_NS.T, by_report),
    )
    return [item.model_copy(update={"distinct_reports": len(reports)}) for item in both]


def _graded(
    of_image: Sequence[Sequence[Mapping[str, object]]], texts: Sequence[Mapping[str, object]], codebook: Codebook,
    weights: SimilarityWeights | None,
) -> FloatArray:  # fmt: skip
    """Return the similarity of every image's findings with every text, 0 where the report says nothing; [N, C]."""
    weights = weights or SimilarityWeights()
    flat = [code for codes in of_image for code in codes]
    # The texts are findings of one more image, which is not looked at.
    owner_F = torch.tensor([row for row, codes in enumerate(of_image) for _ in codes] + [len(of_image)] * len(texts))
    targets = Targets.of(
        FindingTensors.from_rows([*flat, *texts], codebook), owner_F, len(of_image) + 1,
        torch.arange(len(flat), len(flat) + len(texts)), tables=build_tables(codebook, weights), weights=weights,
    )  # fmt: skip
    target_NC, mask_NC = targets.block(slice(len(of_image)))
    return (target_NC * mask_NC).numpy()


def _direction(
    direction: Direction, query_QD: FloatArray, candidate_CD: FloatArray, right_QC: NDArray[np.bool_],
    weights_RQ: NDArray[np.uint16], gain_QC: FloatArray | None = None,
) -> RetrievalResult:  # fmt: skip
    hits, precision, gained = [], [], []
    for at in range(0, len(query_QD), _BLOCK):
        rows = slice(at, at + _BLOCK)
        order_BC = np.argsort(-(query_QD[rows] @ candidate_CD.T), axis=1, kind="stable")
        ranked_BC = np.take_along_axis(right_QC[rows], order_BC, axis=1)
        hits.append(np.stack([ranked_BC[:, :k].any(axis=1) for k in RECALL_AT], axis=1))
        precision.append(_average_precision(ranked_BC))
        if gain_QC is not None:
            gained.append(_ndcg(gain_QC[rows], order_BC))
    hit_QK, precision_Q = np.concatenate(hits).astype(float), np.concatenate(precision)

    def over(value_Q: Floats) -> Interval:
        found = interval_of(weighted_means(weights_RQ, value_Q))
        assert found is not None
        return found

    chance_QK = np.stack([_chance(right_QC.sum(axis=1), right_QC.shape[1], k) for k in RECALL_AT], axis=1)
    return RetrievalResult(
        direction=direction,
        queries=len(query_QD),
        candidates=len(candidate_CD),
        recall={k: over(hit_QK[:, at]) for at, k in enumerate(RECALL_AT)},
        chance={k: float(chance_QK[:, at].mean()) for at, k in enumerate(RECALL_AT)},
        mean_average_precision=over(precision_Q),
        ndcg=over(np.concatenate(gained)) if gained else None,
    )


def _average_precision(ranked_QC: NDArray[np.bool_]) -> Floats:
    found_QC = ranked_QC.cumsum(axis=1)
    precision_QC = found_QC / np.arange(1, ranked_QC.shape[1] + 1)
    return divided((precision_QC * ranked_QC).sum(axis=1), ranked_QC.sum(axis=1).astype(float))


def _ndcg(gain_QC: FloatArray, order_QC: NDArray[np.int64]) -> Floats:
    """Return the normalised discounted cumulative gain at 10 with linear gains (as scikit-learn); [Q]."""
    best = min(NDCG_AT, gain_QC.shape[1])
    discount = 1 / np.log2(np.arange(2, best + 2))
    found_Q = (np.take_along_axis(gain_QC, order_QC[:, :best], axis=1) * discount).sum(axis=1)
    ideal_QC = -np.sort(-np.partition(gain_QC, -best, axis=1)[:, -best:], axis=1)
    return divided(found_Q.astype(float), (ideal_QC * discount).sum(axis=1).astype(float))


def _chance(right_Q: NDArray[np.int64], candidates: int, k: int) -> Floats:
    """Return the probability that k random candidates hold a right one."""
    missed_Q = np.ones(len(right_Q))
    for drawn in range(min(k, candidates)):
        missed_Q *= np.clip((candidates - right_Q - drawn) / (candidates - drawn), 0, 1)
    return 1 - missed_Q
