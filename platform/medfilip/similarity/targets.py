"""Targets of a global batch in four modes, computed on distinct statements and expanded block by block.

A batch of 8,192 images has some 65,000 findings and 24,576 texts, but only a few thousand *distinct* ones. So distinct
findings are compared with distinct texts once (`medfilip.similarity.factorised.compare`), the findings of an image are
reduced by their maximum to one row per image, and a block of the N × T matrix only picks columns of these rows. In mode
``factorised`` the result equals `medfilip.similarity.factorised.similarity` bit for bit.

**Modes.** All modes share the masks, the logic of negation and the views, and differ in s(k, l), the likeness of two
statements none of which is absent; the factor ``uncertain`` applies on top of it in each of them.

===============  ==================================================================================================
factorised       s_cat · (w_cat + w_loc · s_loc + w_sev · s_sev), see `medfilip.similarity.factorised`
category         1[c_k = c_l]
text_cosine      1[c_k = c_l] · max(0, ⟨e_k, e_l⟩) (Liang et al. 2025, III-C, as the authors compute it); exactly 1
                 where codes and embedding are equal
one_hot          no likeness at all: the target is 1 for a text told about the image itself and 0 for every other,
                 also for a negation that the image's report entails
===============  ==================================================================================================

Which pairs the report *speaks about*, and hence the mask, does not depend on the mode: statements of one category or
of related ones, and what negations cover. So the modes can be compared on the same pairs; in ``category`` and
``text_cosine`` a text about a merely related category is therefore a negative that counts. With ``silent=1`` every
visible pair counts, which is the authors' setting. A silent text has target 0, or 1 if it is a negation (0 in
``one_hot``).

A text of the image's own finding has target exactly 1 in every mode, whatever its certainty.

Legend of tensor names: N images, F findings, T texts, U distinct findings, V distinct texts, D embedding, S sites;
n and t in shapes are the images and texts of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.findings.codes import CERTAINTIES, LATERALITIES
from medfilip.similarity.codes import FindingTensors
from medfilip.similarity.factorised import ABSENT, Slots, Verdict, judge, likeness_of, region_overlap
from medfilip.similarity.tables import SimilarityMode, SimilarityTables, SimilarityWeights

__all__ = ["SimilarityMode", "Targets"]

_CELLS = 1 << 22  # of the tables held at once besides the result: distinct findings, or images, by distinct texts
_ALL = slice(None)
_KEY_BITS = 63
_SILENT = -1.0
_CONTRADICTED = 2.0  # above every score, so that one maximum finds both a contradiction and the best relative


@dataclass(frozen=True)
class Targets:
    """Targets and mask of every image-text pair of a global batch; build it by `Targets.of`.

    Attributes
    ----------
    target_NV
        float32 targets of every image with every distinct text; ``None`` in mode ``one_hot``.
    mask_NV
        bool if every weight is 0 or 1, else float32.
    distinct_T
        Column of a text in the two tables.
    owner_T
        Image that a text was told about.
    """

    target_NV: Tensor | None
    mask_NV: Tensor
    distinct_T: Tensor
    owner_T: Tensor

    @classmethod
    def of(
        cls,
        findings: FindingTensors,
        owner_F: Tensor,
        images: int,
        told_T: Tensor,
        *,
        tables: SimilarityTables,
        weights: SimilarityWeights,
        view_N: Tensor | None = None,
        embedding_FD: Tensor | None = None,
    ) -> Targets:
        """Compare the findings of a global batch with its texts.

        Parameters
        ----------
        findings, owner_F
            Findings of all images and the int64 index of the image each belongs to, in [0, ``images``).
        images
            Number of images N; an image may have no findings.
        told_T
            int64 position in ``findings`` of the finding a text tells.
        tables, weights
            Tables built from the same ontology as the codes, and the weights they were built with; ``weights.mode``
            decides the mode.
        view_N
            int64 index into `medfilip.similarity.tables.VIEWS`; ``None`` takes every category for visible.
        embedding_FD
            Unit-length embedding of each finding's full text by a frozen text encoder: needed by ``text_cosine``.

        Raises
        ------
        MedfilipError
            ``config_invalid`` if the mode is ``text_cosine`` and ``embedding_FD`` is missing.
        """
        embedding_FD = _check_embedding(embedding_FD, weights)
        # Under autocast the cosines and overlaps would be computed in half precision.
        with torch.no_grad(), torch.autocast(owner_F.device.type, enabled=False):
            first_U, distinct_F = distinct(findings, tables, embedding_FD)
            first_V, distinct_T = _chosen(first_U, distinct_F[told_T])
            pairs = _Pairs.of(findings, first_U, first_V, tables=tables, weights=weights, embedding_FD=embedding_FD)
            target_NV, spoken_NV = _reduce(pairs, _Bags.of(owner_F, images, distinct_F))
            mask_NV = _mask(spoken_NV, tables.silence_C[findings.category_T[first_V]], weights)
            if view_N is not None:
                mask_NV = mask_NV * tables.visible_VC[view_N][:, findings.category_T[first_V]]
            return cls(target_NV, mask_NV, distinct_T, owner_F[told_T])

    @property
    def shape(self) -> tuple[int, int]:
        """Number of images N and of texts T."""
        return len(self.mask_NV), len(self.distinct_T)

    def block(self, rows: slice = _ALL, columns: slice = _ALL) -> tuple[Tensor, Tensor]:
        """Return target and mask of some images with some texts, both float32 [n, t] in [0, 1]."""
        distinct_T = self.distinct_T[columns]
        mask_NT = self.mask_NV[rows].index_select(1, distinct_T).float()
        if self.target_NV is None:
            return self.own(rows, columns).float(), mask_NT
        return self.target_NV[rows].index_select(1, distinct_T), mask_NT

    def own(self, rows: slice = _ALL, columns: slice = _ALL) -> Tensor:
        """Return, as bool [n, t], whether a text is about one of that image's own findings (CLIP's positives)."""
        image_N = torch.arange(len(self.mask_NV), device=self.owner_T.device)[rows]
        return image_N[:, None] == self.owner_T[columns][None, :]


def distinct(
    findings: FindingTensors, tables: SimilarityTables, embedding_FD: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Find the distinct findings, those of equal codes and, if given, equal embeddings.

    Returns
    -------
    first_U, distinct_F
        Position of the first finding of each distinct one, and which distinct one a finding is.
    """
    first_U, distinct_F = _numbered(_key(findings, tables))
    if embedding_FD is None or torch.equal(embedding_FD, embedding_FD[first_U][distinct_F]):
        return first_U, distinct_F
    # Texts may tell more than the codes: rare, so what it costs matters little.
    text_F = torch.unique(embedding_FD, dim=0, return_inverse=True)[1]
    return _numbered(distinct_F * len(embedding_FD) + text_F)


def _key(findings: FindingTensors, tables: SimilarityTables) -> Tensor:
    """Write the codes of a finding as one int64, without collisions.

    The scalars are digits of a mixed radix. The sites follow as bits where these fit; an ontology of more sites has
    its distinct site sets numbered first.
    """
    radices = (len(tables.category_CC) + 1, len(CERTAINTIES) + 1, tables.ranks + 1, len(LATERALITIES) + 1)
    *scalars, sites_FS = findings.columns()
    key_F, size = torch.zeros_like(findings.category_T), 1
    for digit_F, radix in zip(scalars, radices, strict=True):
        key_F, size = key_F * radix + (digit_F + 1), size * radix  # NONE is -1
    if size << sites_FS.shape[1] <= 1 << _KEY_BITS:
        return (key_F << sites_FS.shape[1]) + _site_key(sites_FS)
    return key_F * len(sites_FS) + _numbered(_site_key(sites_FS))[1]


def _site_key(sites_FS: Tensor) -> Tensor:
    """Write a set of sites as one int64."""
    sites = sites_FS.shape[1]
    if sites <= _KEY_BITS:
        bit_S = torch.ones(sites, dtype=torch.int64, device=sites_FS.device)
        return (sites_FS * (bit_S << torch.arange(sites, device=sites_FS.device))).sum(dim=1)
    number_F: Tensor = torch.unique(sites_FS, dim=0, return_inverse=True)[1]
    return number_F


def _numbered(key_F: Tensor) -> tuple[Tensor, Tensor]:
    """Give distinct keys a number each, in ascending order: position of the first of each, and the number of all."""
    sorted_F, order_F = key_F.sort(stable=True)
    is_new_F = torch.ones_like(sorted_F, dtype=torch.bool)
    is_new_F[1:] = sorted_F[1:] != sorted_F[:-1]
    return order_F[is_new_F], torch.empty_like(order_F).scatter_(0, order_F, is_new_F.cumsum(0) - 1)


def _chosen(first_U: Tensor, distinct_T: Tensor) -> tuple[Tensor, Tensor]:
    """Restrict distinct findings to those that texts tell: the position of each, and which one a text is."""
    is_told_U = torch.zeros_like(first_U, dtype=torch.bool).index_fill_(0, distinct_T, True)
    return first_U[is_told_U], (is_told_U.cumsum(0) - 1)[distinct_T]


@dataclass(frozen=True)
class _Bags:
    """The distinct findings of each image, one image after the other."""

    distinct_F: Tensor
    start_N: Tensor
    is_filled_N: Tensor

    @classmethod
    def of(cls, owner_F: Tensor, images: int, distinct_F: Tensor) -> _Bags:
        sorted_F, order_F = owner_F.sort(stable=True)
        bound_N = torch.searchsorted(sorted_F, torch.arange(images + 1, device=owner_F.device))
        return cls(distinct_F[order_F], bound_N[:-1], bound_N[1:] > bound_N[:-1])

    def maximum(self, values_UV: Tensor) -> Tensor:
        """Maximum over the findings of each image, [N, V]; 0 for an image without findings."""
        return embedding_bag(self.distinct_F, values_UV, self.start_N, mode="max")


@dataclass(frozen=True)
class _Pairs:
    """Distinct findings and distinct texts to be compared.

    Attributes
    ----------
    finding_U, text_V
        Their slots.
    first_U, first_V
        Their positions among all findings; equal positions are equal statements.
    sites_AS, set_U, sites_VS
        The distinct sets of sites of the findings, which of them a finding names, and the sites of the texts.
    related_CC
        bool: a finding of the row's category may speak about a text of the column's.
    embedding_UD, embedding_VD
        Their embeddings, in mode ``text_cosine``.
    """

    finding_U: Slots
    text_V: Slots
    first_U: Tensor
    first_V: Tensor
    sites_AS: Tensor
    set_U: Tensor
    sites_VS: Tensor
    related_CC: Tensor
    tables: SimilarityTables
    weights: SimilarityWeights
    embedding_UD: Tensor | None
    embedding_VD: Tensor | None

    @classmethod
    def of(
        cls,
        findings: FindingTensors,
        first_U: Tensor,
        first_V: Tensor,
        *,
        tables: SimilarityTables,
        weights: SimilarityWeights,
        embedding_FD: Tensor | None,
    ) -> _Pairs:
        chosen, texts = findings[first_U], findings[first_V]
        first_A, set_U = _numbered(_site_key(chosen.sites_TS))
        related_CC = (tables.category_CC > 0) | tables.is_a_CC | tables.is_a_CC.T
        embeddings = (None, None) if embedding_FD is None else (embedding_FD[first_U], embedding_FD[first_V])
        return cls(
            Slots.of(chosen), Slots.of(texts), first_U, first_V, chosen.sites_TS[first_A], set_U, texts.sites_TS,
            related_CC, tables, weights, *embeddings,
        )  # fmt: skip

    def judged(self, columns: slice) -> tuple[Tensor, Verdict]:
        """Judge the pairs of related categories, P of them, in some columns: their places in [U, v], and the rest.

        Of a hundred categories few are related, so that nine pairs of ten need no look.
        """
        category_V = self.text_V.category[columns]
        related_UV = self.related_CC[self.finding_U.category][:, category_V]
        row_P, column_P = related_UV.nonzero().unbind(dim=1)
        finding_P, text_P = self.finding_U.at(row_P), self.text_V.at(column_P + columns.start)
        region_P = region_overlap(self.sites_AS, self.sites_VS[columns], self.tables)[self.set_U[row_P], column_P]
        if self.weights.mode == "factorised":
            likeness_P = likeness_of(finding_P, text_P, region_P, self.tables, self.weights)
        elif self.weights.mode == "one_hot":
            likeness_P = torch.zeros_like(region_P)
        else:
            likeness_P = (finding_P.category == text_P.category).float()
        if self.embedding_UD is not None and self.embedding_VD is not None:
            cosine_UV = self.embedding_UD @ self.embedding_VD[columns].T
            is_equal_P = self.first_U[row_P] == self.first_V[columns][column_P]
            cosine_P = cosine_UV[row_P, column_P].float().clamp_(0, 1)
            likeness_P = likeness_P * cosine_P.masked_fill_(is_equal_P, 1.0)
        place_P = row_P * len(category_V) + column_P
        return place_P, judge(finding_P, text_P, region_P, likeness_P, self.tables, self.weights)


def _reduce(pairs: _Pairs, bags: _Bags) -> tuple[Tensor | None, Tensor]:
    """Judge distinct pairs and reduce over the findings of each image.

    Returns
    -------
    target_NV, spoken_NV
        float32 targets (``None`` for ``one_hot``), and as bool whether the report speaks about the text.
    """
    findings, texts, device = len(pairs.first_U), len(pairs.first_V), bags.start_N.device
    shape = (len(bags.start_N), texts)
    target_NV = None if pairs.weights.mode == "one_hot" else torch.empty(shape, device=device)
    spoken_NV = torch.empty(shape, dtype=torch.bool, device=device)
    for columns in _slices(texts, max(1, _CELLS // max(findings, len(bags.start_N), 1))):
        place_P, verdict = pairs.judged(columns)
        cells = (findings, columns.stop - columns.start)
        # Two maxima hold all four that the dense form takes: -1 marks silence, 2 a contradiction.
        firm_P = torch.where(verdict.speaks, verdict.score * verdict.entails, _SILENT)
        firm_NV = bags.maximum(_spread(firm_P, place_P, cells, elsewhere=_SILENT))
        spoken_NV[:, columns] = (firm_NV > _SILENT) & bags.is_filled_N[:, None]
        if target_NV is None:
            continue
        lent_P = torch.where(verdict.contradicts, _CONTRADICTED, verdict.score * ~verdict.entails)
        lent_NV = bags.maximum(_spread(lent_P, place_P, cells, elsewhere=0.0))
        lent_NV = lent_NV.masked_fill_(lent_NV == _CONTRADICTED, 0.0)
        target_NV[:, columns] = torch.maximum(firm_NV, lent_NV).clamp_(min=0)
    if target_NV is not None and pairs.weights.silent:
        target_NV = torch.where(spoken_NV, target_NV, (pairs.text_V.certainty == ABSENT).float())
    return target_NV, spoken_NV


def _spread(value_P: Tensor, place_P: Tensor, shape: tuple[int, int], *, elsewhere: float) -> Tensor:
    """Write values at distinct places of a table."""
    return value_P.new_full((shape[0] * shape[1],), elsewhere).scatter_(0, place_P, value_P).view(shape)


def _mask(spoken_NV: Tensor, silence_V: Tensor, weights: SimilarityWeights) -> Tensor:
    """Weights of the pairs before views: bool where that is enough, which takes a quarter of the memory."""
    if weights.silent == 0:
        return spoken_NV
    return torch.where(spoken_NV, 1.0, weights.silent * silence_V)


def _check_embedding(embedding_FD: Tensor | None, weights: SimilarityWeights) -> Tensor | None:
    """Return what the mode needs of the embedding."""
    if weights.mode != "text_cosine":
        return None
    if embedding_FD is None:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            "The mode 'text_cosine' compares embeddings of the texts, and none were given (embedding_FD).",
            fix="Give embeddings of a frozen text encoder, or set similarity.mode=factorised.",
        )
    return embedding_FD.detach()


def _slices(length: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, length)) for start in range(0, length, size))
