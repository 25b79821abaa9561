"""The semantic similarity matrix: which text describes which image, and how well (Liang et al. 2025, section III-C).

The authors compare sentence embeddings and call everything else a negative. Here the target comes from the slots of
the findings themselves, and a pair about which the report says nothing is masked out instead of being negative.

Legend of tensor names: N images, F findings of these images, T texts, C categories, S sites. A text is the wording of
one finding, so texts enter as findings.

**Same polarity** (method, section 4): for a present finding k of the image and a present text l

    s(k, l) = s_cat · (w_cat + w_loc · s_loc + w_sev · s_sev)

with s_cat from the category tree, s_loc the overlap of regions times the agreement of sides, s_sev = 1 − |rank
difference| / ranks. A slot that one of the two does not fill is left out and its weight shared among the others.
An uncertain finding against a definite one is scaled by ``weights.uncertain``; against an uncertain one it is not.

**Negation** follows logic instead of likeness. "No effusion" makes "no left effusion" true and "left effusion" false;
"no left effusion" says nothing about "effusion". So a negation speaks about a statement only if it *covers* it: the
statement's category is the negated one or a descendant, and the statement lies within every slot the negation names.

===============  ===============  ====================  =======================
image says       text says        pair speaks if        target
===============  ===============  ====================  =======================
present          present          s_cat > 0             s
uncertain        uncertain        s_cat > 0             s
present          uncertain        s_cat > 0             uncertain · s
uncertain        present          s_cat > 0             uncertain · s
absent           absent           image covers text     1
absent           present          image covers text     0, a contradiction
absent           uncertain        image covers text     0, a contradiction
present          absent           text covers image     0, a contradiction
uncertain        absent           text covers image     1 − uncertain
===============  ===============  ====================  =======================

``Y_il`` is the maximum over the findings of image i. A contradiction removes what merely related categories lend to
a text ("no consolidation" beats the partial similarity of "lung opacity"), but not what a finding of the text's own
category or below it gives (effusion on the right, none on the left).

**Mask.** 1 where at least one finding of the image speaks about the text, else ``weights.silent``: 0 by default.
With ``silent > 0`` a silent pair counts, with that weight, as if the report had negated the text's category: target 0
for present and uncertain texts, 1 for absent ones. Categories not visible in the image's view are always masked out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medfilip.findings.codes import CERTAINTIES, LATERALITIES, NONE
from medfilip.findings.finding import Certainty, Laterality
from medfilip.similarity.codes import FindingTensors
from medfilip.similarity.tables import SimilarityTables, SimilarityWeights

PRESENT, ABSENT, UNCERTAIN = (CERTAINTIES.index(c) for c in (Certainty.PRESENT, Certainty.ABSENT, Certainty.UNCERTAIN))
_BILATERAL = LATERALITIES.index(Laterality.BILATERAL)
_CHUNK = 1024  # findings compared at once: bounds the memory of one F × T block


def similarity(
    findings: FindingTensors,
    owner_F: Tensor,
    images: int,
    texts: FindingTensors,
    *,
    tables: SimilarityTables,
    weights: SimilarityWeights,
    view_N: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute targets and mask of every image with every text in mode ``factorised``, whatever ``weights.mode`` is.

    The direct form, for texts that need not come from the batch; `medfilip.similarity.targets` gives the same matrix
    for a global batch at a fraction of the cost, and the other modes.

    Parameters
    ----------
    findings
        Findings of all images, F rows.
    owner_F
        int64 index of the image a finding belongs to, in [0, ``images``).
    images
        Number of images N; an image may have no findings.
    texts
        Findings the texts are about, T rows.
    tables, weights
        Tables built from the same ontology as the codes, and the weights they were built with.
    view_N
        int64 index into `medfilip.similarity.tables.VIEWS`; ``None`` takes every category for visible.

    Returns
    -------
    target_NT, mask_NT
        float32 in [0, 1].
    """
    shape = (images, len(texts))
    entailed_NT, related_NT = (
        owner_F.new_zeros(shape, dtype=torch.float32),
        owner_F.new_zeros(shape, dtype=torch.float32),
    )
    contradicted_NT, spoken_NT = torch.zeros_like(entailed_NT), torch.zeros_like(entailed_NT)
    for start in range(0, len(findings), _CHUNK):
        part, owner = findings[start : start + _CHUNK], owner_F[start : start + _CHUNK]
        score, speaks, contradicts, entails = compare(part, texts, tables, weights)
        index = owner[:, None].expand(-1, len(texts))
        for into_NT, values_FT in (
            (entailed_NT, score * entails),
            (related_NT, score * ~entails),
            (contradicted_NT, contradicts.float()),
            (spoken_NT, speaks.float()),
        ):
            into_NT.scatter_reduce_(0, index, values_FT, "amax")
    target_NT = torch.maximum(entailed_NT, related_NT * (1 - contradicted_NT))
    if weights.silent:
        silent_target_T = (texts.certainty_T == ABSENT).float()
        target_NT = torch.where(spoken_NT > 0, target_NT, silent_target_T)
    mask_NT = torch.where(spoken_NT > 0, 1.0, weights.silent)
    if view_N is not None:
        mask_NT = mask_NT * tables.visible_VC[view_N][:, texts.category_T]
    return target_NT, mask_NT


def compare(
    findings: FindingTensors,
    texts: FindingTensors,
    tables: SimilarityTables,
    weights: SimilarityWeights,
    *,
    likeness_FT: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compare single findings with texts, by the table in the module's docstring.

    Parameters
    ----------
    likeness_FT
        Stands in for s(k, l), float32 [F, T] or what broadcasts to it; ``None`` computes the factorised one.

    Returns
    -------
    score_FT, speaks_FT, contradicts_FT, entails_FT
        The target of the pair alone, whether the finding speaks about the text, whether it contradicts it, and
        whether the finding's category is the text's or a descendant (so that its score outlasts a contradiction).
    """
    category = tables.category_CC[findings.category_T][:, texts.category_T]
    is_a = tables.is_a_CC[findings.category_T][:, texts.category_T]
    includes = tables.is_a_CC[texts.category_T][:, findings.category_T].T
    region, region_known = _region_overlap(findings, texts, tables)
    if likeness_FT is None:
        likeness_FT = category * _slot_agreement(
            findings, texts, region=region, region_known=region_known, tables=tables, weights=weights
        )

    absent_F, absent_T = (findings.certainty_T == ABSENT)[:, None], (texts.certainty_T == ABSENT)[None, :]
    unsure_F, unsure_T = (findings.certainty_T == UNCERTAIN)[:, None], (texts.certainty_T == UNCERTAIN)[None, :]
    image_covers = includes & _within(texts, findings, (region > 0) & region_known, rows_are_inner=False)
    text_covers = is_a & _within(findings, texts, (region > 0) & region_known, rows_are_inner=True)

    stated = ~absent_F & ~absent_T
    denied = absent_F & image_covers
    denies = ~absent_F & absent_T & text_covers
    score = torch.where(stated, likeness_FT * torch.where(unsure_F ^ unsure_T, weights.uncertain, 1.0), 0.0)
    score = torch.where(denied & absent_T, 1.0, score)
    score = torch.where(denies & unsure_F, 1 - weights.uncertain, score)
    speaks = (stated & (category > 0)) | denied | denies
    contradicts = (denied & ~absent_T) | (denies & ~unsure_F)
    return score, speaks, contradicts, torch.where(stated, is_a, speaks)


def _slot_agreement(
    findings: FindingTensors,
    texts: FindingTensors,
    *,
    region: Tensor,
    region_known: Tensor,
    tables: SimilarityTables,
    weights: SimilarityWeights,
) -> Tensor:
    """Weighted mean of 1 (the category), s_loc and s_sev over the slots both sides fill; [F, T] in (0, 1]."""
    side_F, side_T = findings.laterality_T[:, None], texts.laterality_T[None, :]
    side_known = (side_F != NONE) & (side_T != NONE)
    one_is_bilateral = (side_F == _BILATERAL) ^ (side_T == _BILATERAL)
    side = torch.where(side_F == side_T, 1.0, torch.where(one_is_bilateral, 0.5, 0.0))
    location = torch.where(side_known, side, 1.0) * torch.where(region_known, region, 1.0)
    location_known = side_known | region_known

    rank_F, rank_T = findings.severity_T[:, None], texts.severity_T[None, :]
    severity_known = (rank_F != NONE) & (rank_T != NONE)
    severity = 1 - (rank_F - rank_T).abs() / tables.ranks

    total = weights.category + weights.location * location_known + weights.severity * severity_known
    agreed = (
        weights.category + weights.location * location * location_known + weights.severity * severity * severity_known
    )
    return agreed / total


def _region_overlap(findings: FindingTensors, texts: FindingTensors, tables: SimilarityTables) -> tuple[Tensor, Tensor]:
    """Overlap of the sites of findings and texts, and where both name any; [F, T].

    Each site takes its best counterpart; the overlap is the mean of both directions, 1 for equal sets.
    """
    sites_FS, sites_TS = findings.sites_TS.float(), texts.sites_TS.float()
    best_FS = (sites_FS[:, None, :] * tables.site_SS).amax(dim=2)
    best_TS = (sites_TS[:, None, :] * tables.site_SS).amax(dim=2)
    count_F, count_T = sites_FS.sum(dim=1), sites_TS.sum(dim=1)
    forward = sites_FS @ best_TS.T / count_F.clamp(min=1)[:, None]
    backward = best_FS @ sites_TS.T / count_T.clamp(min=1)[None, :]
    return (forward + backward) / 2, (count_F > 0)[:, None] & (count_T > 0)[None, :]


def _within(inner: FindingTensors, outer: FindingTensors, overlaps: Tensor, *, rows_are_inner: bool) -> Tensor:
    """Whether the inner statement lies within every slot the outer one names; [F, T] as ``overlaps`` is."""

    def pair(inner_X: Tensor, outer_X: Tensor) -> tuple[Tensor, Tensor]:
        return (inner_X[:, None], outer_X[None, :]) if rows_are_inner else (inner_X[None, :], outer_X[:, None])

    inner_side, outer_side = pair(inner.laterality_T, outer.laterality_T)
    side = (outer_side == NONE) | (outer_side == inner_side) | ((outer_side == _BILATERAL) & (inner_side != NONE))
    inner_rank, outer_rank = pair(inner.severity_T, outer.severity_T)
    severity = (outer_rank == NONE) | (outer_rank == inner_rank)
    _, outer_sites = pair(inner.sites_TS.any(dim=1), outer.sites_TS.any(dim=1))
    return side & severity & (~outer_sites | overlaps)
