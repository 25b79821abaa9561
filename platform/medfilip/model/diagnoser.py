"""Zero-shot diagnosis: images and labels in, probabilities and raw scores out.

This is the one way in which evaluation and the endpoint use a model, so both see the same prompts and calibration.

Legend of tensor names: N images, S side of the input, L labels, D joint dimension, P prompts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from medfilip.answers import DiagnosedFinding
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint
from medfilip.findings.ontology import Ontology, load_ontology
from medfilip.knowledge.knowledge import Knowledge, load_knowledge
from medfilip.knowledge.prompts import Prompts, prompts, read_label
from medfilip.model.calibration import Basis, Calibration
from medfilip.model.checkpoint import Checkpoint, SlotCounts, Versions, load_checkpoint
from medfilip.model.dual_encoder import DualEncoder
from medfilip.model.familiarity import Familiarity
from medfilip.model.heat_map import MapMethod, enlarge, heat_maps

_BATCH = 64
_TEXT_BATCH = 256
_MAP_BATCH = 16
_CACHED_LABELS = 4096
_CACHED_BANKS = 256

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class LabelBank:
    """Embedded labels.

    Attributes
    ----------
    labels
        As they were asked for.
    categories
        The ontology id when a label is a bare category, else ``None``: its calibration key.
    prompts
        What was embedded.
    positive_LD, negative_LD
        float32, unit length.
    fingerprint
        Names the label set: prompts and model.
    """

    labels: tuple[str, ...]
    categories: tuple[str | None, ...]
    prompts: tuple[Prompts, ...]
    positive_LD: FloatArray
    negative_LD: FloatArray
    fingerprint: str

    def take(self, rows: Sequence[int]) -> LabelBank:
        """Return some of the labels; the name of the set stays that of the whole."""
        return replace(
            self,
            labels=tuple(self.labels[at] for at in rows),
            categories=tuple(self.categories[at] for at in rows),
            prompts=tuple(self.prompts[at] for at in rows),
            positive_LD=self.positive_LD[list(rows)],
            negative_LD=self.negative_LD[list(rows)],
        )


@dataclass(frozen=True)
class Scores:
    """What the model says about N images and L labels.

    Attributes
    ----------
    probability_NL
        float64 in [0, 1].
    basis_L
        Which calibration stands behind a label's probabilities: its category's, the overall one, or none.
    positive_NL, negative_NL
        float64 logits of the positive and of the negated prompts.
    """

    labels: tuple[str, ...]
    probability_NL: NDArray[np.float64]
    basis_L: tuple[Basis, ...]
    positive_NL: NDArray[np.float64]
    negative_NL: NDArray[np.float64]

    @property
    def calibrated(self) -> tuple[bool, ...]:
        """Whether a label's probabilities come from a curve fitted for its own category."""
        return tuple(basis == "category" for basis in self.basis_L)

    @property
    def margins(self) -> NDArray[np.float64]:
        """Positive minus negated logit: the PNC score."""
        return self.positive_NL - self.negative_NL


class Diagnoser:
    """A model with its prompts and calibration; never changes the model and keeps it in eval mode."""

    def __init__(
        self,
        model: DualEncoder,
        *,
        versions: Versions,
        model_fingerprint: str,
        calibration: Calibration | None = None,
        familiarity: Familiarity | None = None,
        slots: SlotCounts | None = None,
        metrics: Mapping[str, object] | None = None,
        ontology: Ontology | None = None,
        knowledge: Knowledge | None = None,
    ) -> None:
        self.model = model.eval()
        self.versions, self.fingerprint = versions, model_fingerprint
        self.calibration, self.familiarity = calibration or Calibration(), familiarity
        self.slots: SlotCounts = slots or {}
        self.metrics = {
            name: float(value)
            for name, value in (metrics or {}).items()
            if isinstance(value, int | float) and np.isfinite(value)
        }
        self._ontology, self._knowledge = ontology or load_ontology(), knowledge or load_knowledge()
        self._cache: OrderedDict[Prompts, tuple[FloatArray, FloatArray]] = OrderedDict()
        self._banks: OrderedDict[tuple[str, ...], LabelBank] = OrderedDict()
        if versions.ontology != self._ontology.fingerprint:
            raise MedfilipError(
                ErrorCode.CHECKPOINT_INVALID,
                f"The checkpoint was trained with ontology {versions.ontology}; this version has "
                f"{self._ontology.fingerprint}.",
                fix="Use the version of medfilip that trained it, or train again with this one.",
            )

    @classmethod
    def load(cls, folder: str | Path, device: str = "cpu") -> Diagnoser:
        """Load and verify a checkpoint folder."""
        checkpoint: Checkpoint = load_checkpoint(Path(folder))
        return cls(
            checkpoint.model.to(device),
            versions=checkpoint.versions,
            model_fingerprint=checkpoint.fingerprint,
            calibration=checkpoint.calibration,
            familiarity=checkpoint.familiarity,
            slots=checkpoint.slots,
            metrics=checkpoint.metrics,
        )

    @property
    def image_size(self) -> int:
        """Side of the input, in pixels."""
        return self.model.config.image_size

    @property
    def knowledge_changed(self) -> bool:
        """Whether prompts are written from other knowledge than the training texts were."""
        return self.versions.knowledge != self._knowledge.fingerprint

    def encode_images(self, pixels_N1SS: FloatArray, study_N: NDArray[np.int64] | None = None) -> FloatArray:
        """Embed preprocessed images; [N, D], float32, unit length.

        With ``study_N``, the images of a study are pooled and there is one row a study; see `join`.

        Raises
        ------
        MedfilipError
            As `image_features`.
        """
        return self.join(self.image_features(pixels_N1SS), study_N)

    @torch.inference_mode()
    def image_features(self, pixels_N1SS: FloatArray) -> FloatArray:
        """Run the image tower over preprocessed images; [N, D + F], float32, for `join` and `texture`.

        Raises
        ------
        MedfilipError
            ``REQUEST_INVALID`` if the array is not float [N, 1, S, S] of the model's size.
        """
        size = self.image_size
        if pixels_N1SS.ndim != 4 or pixels_N1SS.shape[1:] != (1, size, size):
            raise MedfilipError(
                ErrorCode.REQUEST_INVALID,
                f"The pixels must have the shape [N, 1, {size}, {size}]; they have {list(pixels_N1SS.shape)}.",
                fix="Preprocess the image with medfilip.imaging.preprocess.to_model.",
            )
        if not len(pixels_N1SS):
            return np.zeros((0, self.model.config.embed_dim), np.float32)
        parts = []
        for at in range(0, len(pixels_N1SS), _BATCH):
            pixels = torch.from_numpy(pixels_N1SS[at : at + _BATCH]).float().to(self._device)
            parts.append(_array(torch.cat(self.model.image.view_and_texture(pixels), dim=1)))
        return np.concatenate(parts)

    def texture(self, feature_ND: FloatArray) -> FloatArray:
        """Return what `image_features` says of the images themselves, for `Diagnoser.familiarity`; [N, F]."""
        return feature_ND[:, self.model.config.embed_dim :]

    @torch.inference_mode()
    def join(self, feature_ND: FloatArray, study_N: NDArray[np.int64] | None = None) -> FloatArray:
        """Bring the output of `image_features` to unit length, float32.

        With ``study_N``, the ascending index of the study that each image belongs to, from 0 and without gaps, the
        images of a study are averaged before, as in training, and there is one row a study.
        """
        if not len(feature_ND):
            return feature_ND
        owner_N = None if study_N is None else torch.from_numpy(study_N).to(self._device)
        studies = 0 if study_N is None else int(study_N[-1]) + 1
        view_ND = np.ascontiguousarray(feature_ND[:, : self.model.config.embed_dim])
        return _array(self.model.join(torch.from_numpy(view_ND).to(self._device), owner_N, studies))

    def encode_labels(self, labels: Sequence[str]) -> LabelBank:
        """Embed labels: ontology ids, names, fine-grained or free texts. Known ones come from a cache."""
        asked = tuple(labels)
        if asked not in self._banks:
            mode = self.versions.injection
            written = [prompts(label, self._knowledge, self._ontology, mode=mode) for label in asked]
            self._banks[asked] = self.encode_prompts(asked, written)
            if len(self._banks) > _CACHED_BANKS:
                self._banks.popitem(last=False)
        return self._banks[asked]

    def encode_prompts(
        self, labels: Sequence[str], written: Sequence[Prompts], categories: Sequence[str | None] | None = None
    ) -> LabelBank:
        """Embed labels by prompts of the caller's own, one `Prompts` a label.

        ``categories`` says which calibration each of them has; without it, labels that are bare categories have theirs.
        """
        embedded = [self._embed(item) for item in written]
        dimension = self.model.config.embed_dim
        return LabelBank(
            labels=tuple(labels),
            categories=tuple(map(self._category, labels) if categories is None else categories),
            prompts=tuple(written),
            positive_LD=np.stack([item[0] for item in embedded]) if embedded else np.zeros((0, dimension), np.float32),
            negative_LD=np.stack([item[1] for item in embedded]) if embedded else np.zeros((0, dimension), np.float32),
            fingerprint=fingerprint([self.fingerprint, [[*item.positive, "", *item.negative] for item in written]]),
        )

    def score(self, image_ND: FloatArray, bank: LabelBank) -> Scores:
        """Score every image against every label."""
        scale, bias = self.model.scale().item(), self.model.bias.item()
        image = image_ND.astype(np.float64)
        positive_NL = scale * image @ bank.positive_LD.T.astype(np.float64) + bias
        negative_NL = scale * image @ bank.negative_LD.T.astype(np.float64) + bias
        margin_NL = positive_NL - negative_NL
        columns = [self.calibration.apply(margin_NL[:, at], category) for at, category in enumerate(bank.categories)]
        probability_NL = np.stack([column[0] for column in columns], axis=1) if columns else margin_NL
        return Scores(bank.labels, probability_NL, tuple(column[1] for column in columns), positive_NL, negative_NL)

    @staticmethod
    def findings(scores: Scores, bank: LabelBank) -> list[tuple[DiagnosedFinding, ...]]:
        """Tell the scores of each of N images as the endpoint answers them: N times one finding a label."""
        return [
            tuple(
                DiagnosedFinding(
                    label=label,
                    category=bank.categories[at],
                    probability=float(scores.probability_NL[row, at]),
                    calibrated=scores.calibrated[at],
                    calibration=scores.basis_L[at],
                    positive_score=float(scores.positive_NL[row, at]),
                    negative_score=float(scores.negative_NL[row, at]),
                )
                for at, label in enumerate(bank.labels)
            )
            for row in range(len(scores.probability_NL))
        ]

    def heat_maps(self, pixels_N1SS: FloatArray, bank: LabelBank, method: MapMethod = "gradient") -> FloatArray:
        """Say where the evidence for each label lies; float32 [N, L, S, S], see `medfilip.model.heat_map`."""
        label_LD = torch.from_numpy(bank.positive_LD - bank.negative_LD).to(self._device)
        parts = [np.zeros((0, len(label_LD), self.image_size, self.image_size), np.float32)]
        for at in range(0, len(pixels_N1SS), _MAP_BATCH):
            part = torch.from_numpy(pixels_N1SS[at : at + _MAP_BATCH]).float().to(self._device)
            parts.append(_array(enlarge(heat_maps(self.model.image, part, label_LD, method), self.image_size)))
        return np.concatenate(parts)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """Embed texts as they are; [T, D], float32, unit length."""
        parts = [self.model.encode_text(texts[at : at + _TEXT_BATCH]) for at in range(0, len(texts), _TEXT_BATCH)]
        return _array(torch.cat(parts)) if parts else np.zeros((0, self.model.config.embed_dim), np.float32)

    @property
    def _device(self) -> torch.device:
        return self.model.bias.device

    def _category(self, label: str) -> str | None:
        finding = read_label(" ".join(label.split()), self._ontology)
        if finding is None or any(value for slot, value in finding.items() if slot not in ("category", "certainty")):
            return None
        return str(finding["category"])

    @torch.inference_mode()
    def _embed(self, item: Prompts) -> tuple[FloatArray, FloatArray]:
        if item not in self._cache:
            texts_PD = self.model.encode_text([*item.positive, *item.negative])
            split = len(item.positive)
            self._cache[item] = _array(_ensemble(texts_PD[:split])), _array(_ensemble(texts_PD[split:]))
            if len(self._cache) > _CACHED_LABELS:
                self._cache.popitem(last=False)
        return self._cache[item]


def _ensemble(texts_PD: Tensor) -> Tensor:
    return functional.normalize(texts_PD.mean(dim=0), dim=-1)


def _array(tensor: Tensor) -> FloatArray:
    return tensor.float().cpu().numpy()
