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
With ``silent > 0`` a silent pair counts, with that weight times the category's ``SimilarityTables.silence_C``, as if
the report had negated the text's category: target 0 for present and uncertain texts, 1 for absent ones. Categories
not visible in the image's view are always masked out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from medfilip.findings.codes import CERTAINTIES, LATERALITIES, NONE
from medfilip.findings.finding import Certainty, Laterality
from medfilip.similarity.codes import FindingTensors
from medfilip.similarity.tables import SimilarityTables, SimilarityWeights

PRESENT, ABSENT, UNCERTAIN = (CERTAINTIES.index(c) for c in (Certainty.PRESENT, Certainty.ABSENT, Certainty.UNCERTAIN))
_BILATERAL = LATERALITIES.index(Laterality.BILATERAL)
_ALL = slice(None)
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
    mask_NT = torch.where(spoken_NT > 0, 1.0, weights.silent * tables.silence_C[texts.category_T])
    if view_N is not None:
        mask_NT = mask_NT * tables.visible_VC[view_N][:, texts.category_T]
    return target_NT, mask_NT


class Slots(NamedTuple):
    """Slots of statements, in any shape: [F, 1] beside [1, T] compares all of one with all of the other.

    Positions in the code book, and as bool whether the statement names sites.
    """

    category: Tensor
    certainty: Tensor
    severity: Tensor
    laterality: Tensor
    has_sites: Tensor

    @classmethod
    def of(cls, findings: FindingTensors) -> Slots:
        """Take the slots of findings, each [F]."""
        category_F, *others, sites_FS = findings.columns()
        # Bytes, since pairs are many; the category stays an index.
        certainty_F, severity_F, laterality_F = (other_F.to(torch.int8) for other_F in others)
        return cls(category_F, certainty_F, severity_F, laterality_F, sites_FS.any(dim=1))

    def at(self, index: Tensor | tuple[slice | None, ...]) -> Slots:
        """Index every slot."""
        return Slots(*(slot[index] for slot in self))


class Verdict(NamedTuple):
    """What findings say about texts, each in the shape of the pairs.

    Attributes
    ----------
    score
        The target of the pair alone, float32 in [0, 1].
    speaks, contradicts
        Whether the finding speaks about the text, and whether it contradicts it.
    entails
        Whether the finding's category is the text's or a descendant, so that its score outlasts a contradiction.
    """

    score: Tensor
    speaks: Tensor
    contradicts: Tensor
    entails: Tensor


def compare(
    findings: FindingTensors, texts: FindingTensors, tables: SimilarityTables, weights: SimilarityWeights
) -> Verdict:
    """Compare all findings with all texts, [F, T], by the table in the module's docstring."""
    slots_F1, slots_1T = Slots.of(findings).at((_ALL, None)), Slots.of(texts).at((None, _ALL))
    region_FT = region_overlap(findings.sites_TS, texts.sites_TS, tables)
    likeness_FT = likeness_of(slots_F1, slots_1T, region_FT, tables, weights)
    return judge(slots_F1, slots_1T, region_FT, likeness_FT, tables, weights)


def judge(
    finding: Slots, text: Slots, region: Tensor, likeness: Tensor, tables: SimilarityTables, weights: SimilarityWeights
) -> Verdict:
    """Judge pairs of a finding and a text, in whatever shape these broadcast to.

    Parameters
    ----------
    finding, text
        The pairs.
    region
        Their `region_overlap`.
    likeness
        s(k, l), which counts where neither is absent.
    """
    is_a = tables.is_a_CC[finding.category, text.category]
    includes = tables.is_a_CC[text.category, finding.category]
    is_absent, text_absent = finding.certainty == ABSENT, text.certainty == ABSENT
    unsure, text_unsure = finding.certainty == UNCERTAIN, text.certainty == UNCERTAIN
    overlaps = (region > 0) & finding.has_sites & text.has_sites

    stated = ~is_absent & ~text_absent
    denied = is_absent & includes & _within(text, finding, overlaps)
    denies = ~is_absent & text_absent & is_a & _within(finding, text, overlaps)
    score = torch.where(stated, likeness * torch.where(unsure ^ text_unsure, weights.uncertain, 1.0), 0.0)
    score = torch.where(denied & text_absent, 1.0, score)
    score = torch.where(denies & unsure, 1 - weights.uncertain, score)
    related = tables.category_CC[finding.category, text.category] > 0
    speaks = (stated & related) | denied | denies
    contradicts = (denied & ~text_absent) | (denies & ~unsure)
    return Verdict(score, speaks, contradicts, torch.where(stated, is_a, speaks))


def likeness_of(
    finding: Slots, text: Slots, region: Tensor, tables: SimilarityTables, weights: SimilarityWeights
) -> Tensor:
    """s_cat times the mean of 1 (the category), s_loc and s_sev over the slots both fill; the arguments of `judge`."""
    side_known = (finding.laterality != NONE) & (text.laterality != NONE)
    one_is_bilateral = (finding.laterality == _BILATERAL) ^ (text.laterality == _BILATERAL)
    side = torch.where(finding.laterality == text.laterality, 1.0, torch.where(one_is_bilateral, 0.5, 0.0))
    region_known = finding.has_sites & text.has_sites
    location = torch.where(side_known, side, 1.0) * torch.where(region_known, region, 1.0)
    location_known = side_known | region_known

    severity_known = (finding.severity != NONE) & (text.severity != NONE)
    severity = 1 - (finding.severity - text.severity).abs() / tables.ranks

    total = weights.category + weights.location * location_known + weights.severity * severity_known
    agreed = (
        weights.category + weights.location * location * location_known + weights.severity * severity * severity_known
    )
    return tables.category_CC[finding.category, text.category] * (agreed / total)


def region_overlap(sites_FS: Tensor, sites_TS: Tensor, tables: SimilarityTables) -> Tensor:
    """Overlap of sets of sites, [F, T]; it means something where both sets name any.

    Each site takes its best counterpart; the overlap is the mean of both directions, 1 for equal sets.
    """
    sites_FS, sites_TS = sites_FS.float(), sites_TS.float()
    best_FS = (sites_FS[:, None, :] * tables.site_SS).amax(dim=2)
    best_TS = (sites_TS[:, None, :] * tables.site_SS).amax(dim=2)
    forward_FT = sites_FS @ best_TS.T / sites_FS.sum(dim=1).clamp(min=1)[:, None]
    backward_FT = best_FS @ sites_TS.T / sites_TS.sum(dim=1).clamp(min=1)[None, :]
    return (forward_FT + backward_FT) / 2


def _within(inner: Slots, outer: Slots, overlaps: Tensor) -> Tensor:
    """Whether the inner statement lies within every slot the outer one names."""
    side = (
        (outer.laterality == NONE)
        | (outer.laterality == inner.laterality)
        | ((outer.laterality == _BILATERAL) & (inner.laterality != NONE))
    )
    severity = (outer.severity == NONE) | (outer.severity == inner.severity)
    return side & severity & (~outer.has_sites | overlaps)
