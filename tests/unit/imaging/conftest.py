"""What tests of images share."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from medfilip.imaging.isolation import IsolatedDecoder
from medfilip.imaging.limits import ImageLimits
from tests.support.dicoms import make_dicom


@pytest.fixture
def limits() -> ImageLimits:
    return ImageLimits()


@pytest.fixture(scope="session")
def decoder() -> Iterator[IsolatedDecoder]:
    with IsolatedDecoder(ImageLimits()) as shared:
        yield shared


@pytest.fixture
def dicom() -> Callable[..., bytes]:
    return make_dicom


@pytest.fixture
def ramp() -> np.ndarray:
    """12-bit values [32, 64], each of 0, 2, …, 4094 once."""
    return (np.arange(2048, dtype=np.uint16) * 2).reshape(32, 64)
