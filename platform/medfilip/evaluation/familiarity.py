"""Whether a model knows that it does not know: its familiarity with test images against images of something else.

Legend of tensor names: N images, F features of a texture.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint, sha256_bytes
from medfilip.evaluation.embedded import EmbeddedImages, Options
from medfilip.evaluation.metrics import Interval, aurocs, interval_of, resample_weights
from medfilip.imaging.given import radiograph_of
from medfilip.imaging.isolation import shared_decoder
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.preprocess import DEFAULT_STORE_SIZE, to_model, to_store
from medfilip.model.diagnoser import Diagnoser, FloatArray

FLAGGED_ABOVE = 0.99


class FamiliarityResult(BaseModel):
    """How well test images and strangers are told apart by the distance of their textures.

    Attributes
    ----------
    auroc
        Of the distance, strangers being the positives; the interval resamples patients, and strangers one by one.
    flagged_test, flagged_strangers
        Share that lies farther out than 99 % of the reference images.
    refused
        Error code → strangers that could not be read: an endpoint would not answer them at all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    test_images: int
    strangers: int
    refused: dict[str, int]
    auroc: Interval
    flagged_test: float
    flagged_strangers: float


@dataclass(frozen=True)
class Strangers:
    """Images of something else as `Diagnoser.texture` tells them, and how many could not be read, by error code."""

    texture_NF: FloatArray
    refused: dict[str, int]


def read_strangers(folder: Path, diagnoser: Diagnoser) -> Strangers:
    """Read and embed every file of a folder through the guarded reader of diagnosis.

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND`` if there is no such folder, ``NOT_ENOUGH_DATA`` if nothing in it can be read.
    """
    limits, refused = ImageLimits(), Counter[str]()
    embedded: list[FloatArray] = []
    for path in _files(folder):
        try:
            radiograph = radiograph_of(path, limits, shared_decoder(limits))
        except MedfilipError as error:
            refused[str(error.code)] += 1
            continue
        pixels_1SS = to_model(to_store(radiograph.pixels, DEFAULT_STORE_SIZE), diagnoser.image_size)
        embedded.append(diagnoser.texture(diagnoser.image_features(pixels_1SS[None]))[0])
    if not embedded:
        raise MedfilipError(
            ErrorCode.NOT_ENOUGH_DATA,
            f"None of the {sum(refused.values())} files of the folder 'unfamiliar' is an image that can be read.",
            fix="Give a folder of DICOM, PNG or JPEG files.",
        )
    return Strangers(np.stack(embedded), dict(refused))


def fingerprint_of(folder: str | None) -> str:
    """Return the fingerprint of a folder's files, or of nothing."""
    return fingerprint([sha256_bytes(path.read_bytes()) for path in _files(Path(folder))] if folder else [])


def evaluate_familiarity(
    diagnoser: Diagnoser, test: EmbeddedImages, strangers: Strangers, options: Options
) -> FamiliarityResult:
    """Measure how well a checkpoint's familiarity tells test images from strangers.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` if the checkpoint has no reference.
    """
    if diagnoser.familiarity is None:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            "The checkpoint does not know what its images look like, so 'unfamiliar' cannot be evaluated.",
            fix="Run `medfilip calibrate` on at least 40 validation images, and evaluate the checkpoint it writes.",
        )
    assert test.texture_NF is not None
    texture_NF = np.concatenate([test.texture_NF, strangers.texture_NF])
    is_stranger_N = np.arange(len(texture_NF)) >= len(test)
    patients = [*test.column("patient_id"), *(f"stranger {at}" for at in range(len(strangers.texture_NF)))]
    weights_RN = resample_weights(patients, options.resamples, options.seed)
    distance_N = diagnoser.familiarity.distance(texture_NF)
    flagged_N = diagnoser.familiarity.unfamiliarity(texture_NF) > FLAGGED_ABOVE
    area = interval_of(aurocs(is_stranger_N.astype(np.int64), distance_N, weights_RN))
    assert area is not None
    return FamiliarityResult(
        test_images=len(test),
        strangers=len(strangers.texture_NF),
        refused=strangers.refused,
        auroc=area,
        flagged_test=float(flagged_N[~is_stranger_N].mean()),
        flagged_strangers=float(flagged_N[is_stranger_N].mean()),
    )


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND, "The folder of 'unfamiliar' is not there.", fix="Give an existing folder."
        )
    return sorted(path for path in folder.rglob("*") if path.is_file())
