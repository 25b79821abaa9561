"""How far an image lies from what a model knows: the distance of its texture from those of its own corpus.

A zero-shot model answers whatever it is shown, a knee as well as a chest. The Mahalanobis distance (Lee et al. 2018)
of what a middle feature map says of an image (`ImageEncoder.view_and_texture`) from the mean of reference images, with
a shrunk covariance (Ledoit and Wolf 2004), says which images are unlike anything the model was made on. Distances of
reference images are measured from a reference that they are not part of: with a few hundred images and as many
dimensions an image's own part in the covariance would hide how far it lies out.

Legend of tensor names: N images, D features of a texture, Q quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FILE = "familiarity.safetensors"
MIN_IMAGES = 40
"""A reference of fewer images says nothing about the tail of their distances."""
_FOLDS = 5
_QUANTILES = 1001


@dataclass(frozen=True)
class Familiarity:
    """The reference of a model.

    Attributes
    ----------
    mean_D
        float64, mean texture.
    precision_DD
        float64, inverse of the covariance.
    distance_Q
        float64, quantiles from 0 to 1 in equal steps of the distances of reference images.
    """

    mean_D: Floats
    precision_DD: Floats
    distance_Q: Floats

    @classmethod
    def fit(cls, texture_ND: NDArray[np.floating], seed: int = 0) -> Familiarity | None:
        """Fit to the textures of images; ``None`` for fewer than `MIN_IMAGES`."""
        if len(texture_ND) < MIN_IMAGES:
            return None
        known_ND: Floats = texture_ND.astype(np.float64)
        fold_N = np.random.default_rng(seed).permutation(len(texture_ND)) % _FOLDS
        held_out = [
            _distance(known_ND[fold_N == fold], *_reference(known_ND[fold_N != fold])) for fold in range(_FOLDS)
        ]
        quantiles = np.quantile(np.concatenate(held_out), np.linspace(0, 1, _QUANTILES)).astype(np.float64)
        return cls(*_reference(known_ND), quantiles)

    def distance(self, image_ND: NDArray[np.floating]) -> Floats:
        """Return the distance of each image, [N]."""
        return _distance(image_ND.astype(np.float64), self.mean_D, self.precision_DD)

    def unfamiliarity(self, image_ND: NDArray[np.floating]) -> Floats:
        """Return the share of reference images that lie nearer, in [0, 1]; [N]."""
        return np.interp(self.distance(image_ND), self.distance_Q, np.linspace(0, 1, len(self.distance_Q)))

    def to_bytes(self) -> bytes:
        """Write as safetensors."""
        packed: bytes = safetensors.numpy.save(
            {"mean": self.mean_D, "precision": self.precision_DD, "distance": self.distance_Q}
        )
        return packed

    @classmethod
    def from_bytes(cls, data: bytes) -> Familiarity:
        """Undo `to_bytes`.

        Raises
        ------
        ValueError
            If the tensors do not fit together.
        """
        read = safetensors.numpy.load(data)
        mean_D, precision_DD, distance_Q = read["mean"], read["precision"], read["distance"]
        if mean_D.ndim != 1 or precision_DD.shape != (len(mean_D),) * 2 or distance_Q.ndim != 1 or not len(distance_Q):
            raise ValueError("mean, precision and distance do not fit together")
        return cls(mean_D, precision_DD, distance_Q)


def _reference(image_ND: Floats) -> tuple[Floats, Floats]:
    from sklearn.covariance import LedoitWolf

    fitted = LedoitWolf().fit(image_ND)
    return fitted.location_, fitted.precision_


def _distance(image_ND: Floats, mean_D: Floats, precision_DD: Floats) -> Floats:
    away_ND = image_ND - mean_D
    found: Floats = np.sqrt(np.einsum("nd,de,ne->n", away_ND, precision_DD, away_ND).clip(0))
    return found
