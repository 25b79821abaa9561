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
from medfilip.similarity.factorised import ABSENT, compare
from medfilip.similarity.tables import SimilarityMode, SimilarityTables, SimilarityWeights

__all__ = ["SimilarityMode", "Targets"]

_CELLS = 1 << 22  # pairs of distinct findings and texts compared at once: bounds what is held besides the result
_ALL = slice(None)
_KEY_BITS = 63
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
            bags = _Bags.of(owner_F, images, distinct_F)
            embedding_UD = None if embedding_FD is None else embedding_FD[first_U]
            embedding_VD = None if embedding_FD is None else embedding_FD[first_V]
            target_NV, spoken_NV = _reduce(
                (findings[first_U], findings[first_V]), (embedding_UD, embedding_VD), (first_U, first_V),
                bags, tables=tables, weights=weights,
            )  # fmt: skip
            mask_NV = _mask(spoken_NV, weights)
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
    sites = sites_FS.shape[1]
    if size << sites <= 1 << _KEY_BITS:
        bit_S = torch.ones(sites, dtype=torch.int64, device=key_F.device) << torch.arange(sites, device=key_F.device)
        return (key_F << sites) + (sites_FS * bit_S).sum(dim=1)
    sites_F: Tensor = torch.unique(sites_FS, dim=0, return_inverse=True)[1]
    return key_F * len(sites_FS) + sites_F


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


def _reduce(
    statements: tuple[FindingTensors, FindingTensors],
    embeddings: tuple[Tensor | None, Tensor | None],
    positions: tuple[Tensor, Tensor],
    bags: _Bags,
    *,
    tables: SimilarityTables,
    weights: SimilarityWeights,
) -> tuple[Tensor | None, Tensor]:
    """Compare distinct findings with distinct texts and reduce over the findings of each image.

    Returns
    -------
    target_NV, spoken_NV
        float32 targets (``None`` for ``one_hot``), and as bool whether the report speaks about the text.
    """
    (findings, texts), shape = statements, (len(bags.start_N), len(statements[1]))
    one_hot = weights.mode == "one_hot"
    target_NV = None if one_hot else torch.empty(shape, device=bags.start_N.device)
    spoken_NV = torch.empty(shape, dtype=torch.bool, device=bags.start_N.device)
    for columns in _slices(len(texts), max(1, _CELLS // max(len(findings), 1))):
        part = texts[columns]
        likeness_UV = _likeness(findings, part, embeddings, positions, columns, weights.mode)
        score, speaks, contradicts, entails = compare(findings, part, tables, weights, likeness_FT=likeness_UV)
        # Two maxima hold all four that the dense form takes: -1 marks silence, 2 a contradiction.
        firm_NV = bags.maximum(torch.where(speaks, score * entails, -1.0))
        spoken_NV[:, columns] = (firm_NV >= 0) & bags.is_filled_N[:, None]
        if target_NV is None:
            continue
        lent_NV = bags.maximum(torch.where(contradicts, _CONTRADICTED, score * ~entails))
        lent_NV = lent_NV.masked_fill_(lent_NV == _CONTRADICTED, 0.0)
        target_NV[:, columns] = torch.maximum(firm_NV, lent_NV).clamp_(min=0)
    if target_NV is not None and weights.silent:
        target_NV = torch.where(spoken_NV, target_NV, (texts.certainty_T == ABSENT).float())
    return target_NV, spoken_NV


def _likeness(
    findings: FindingTensors,
    texts: FindingTensors,
    embeddings: tuple[Tensor | None, Tensor | None],
    positions: tuple[Tensor, Tensor],
    columns: slice,
    mode: SimilarityMode,
) -> Tensor | None:
    """Return s(k, l) of two statements in a mode, [U, V] or a scalar; ``None`` stands for the factorised one."""
    if mode == "factorised":
        return None
    if mode == "one_hot":
        return torch.zeros((), device=findings.category_T.device)
    same_UV = (findings.category_T[:, None] == texts.category_T[None, :]).float()
    embedding_UD, embedding_VD = embeddings
    if mode == "category" or embedding_UD is None or embedding_VD is None:
        return same_UV
    cosine_UV = (embedding_UD @ embedding_VD[columns].T).float().clamp_(0, 1)
    is_equal_UV = positions[0][:, None] == positions[1][columns][None, :]
    return same_UV * cosine_UV.masked_fill_(is_equal_UV, 1.0)


def _mask(spoken_NV: Tensor, weights: SimilarityWeights) -> Tensor:
    """Weights of the pairs before views: bool where that is enough, which takes a quarter of the memory."""
    if weights.silent == 0:
        return spoken_NV
    if weights.silent == 1:
        return torch.ones_like(spoken_NV)
    return torch.where(spoken_NV, 1.0, weights.silent)


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
    return (slice(start, start + size) for start in range(0, length, size))
