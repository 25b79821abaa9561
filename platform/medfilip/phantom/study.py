"""Synthetic studies: an endless, numbered supply of patients that never were.

Study ``index`` of seed ``seed`` is the same whatever else is generated: nothing is drawn from a shared stream.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medfilip.findings.finding import Finding
from medfilip.phantom.draw import (
    ALL_STYLES,
    DEFAULT_SIZE,
    Box,
    PhantomImage,
    check_styles,
    draw_study,
    exposure_of,
    patient_of,
)
from medfilip.phantom.lesions import (
    CATEGORIES,
    CategoryTruth,
    Lesion,
    check_categories,
    sample_lesions,
    sample_study,
    study_truth,
    thin_out,
)
from medfilip.phantom.text import write_report

GENERATOR_VERSION = 4
"""Raised whenever the same seed gives other studies than before."""

_SECOND_STUDY_RATE = 0.4


DEMONSTRATED = (
    "pleural_effusion", "consolidation", "cardiomegaly", "pneumothorax", "edema", "atelectasis", "hyperinflation",
    "hypoinflation", "nodule", "mass",
)  # fmt: skip
"""What the checkpoint of the package is trained on, and the phantoms of the endpoint's page show."""


@dataclass(frozen=True)
class StudyOptions:
    """What studies of a seed are made of.

    Attributes
    ----------
    size
        Side of the images in pixels.
    categories
        What images may show, and reports of images name beside findings of the text alone.
    prevalence
        Share of the studies that have a category, the same for all; ``None`` for each category's own.
    styles
        Renderer styles; leave one out to hold it out.
    lateral
        Share of the upright studies that have a lateral image too.
    """

    size: int = DEFAULT_SIZE
    categories: tuple[str, ...] = CATEGORIES
    prevalence: float | None = None
    styles: tuple[str, ...] = ALL_STYLES
    lateral: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what does not exist; see `check_categories` and `check_styles`."""
        check_categories(self.categories)
        check_styles(self.styles)


@dataclass(frozen=True, eq=False)
class PhantomStudy:
    """One study: a report, its images and the truth of both.

    Attributes
    ----------
    index
        Number of the study within its seed.
    report_id, study_uid, sop_uids, patient_id, patient_name, sex, age
        Identifiers as a hospital's systems would give them, all invented; one SOP instance UID an image.
    text
        The whole report.
    findings
        Every statement of the report; evidence spans are code points of ``text``.
    lesions, study_truth
        What the images show, one by one and by category.
    images
        The frontal image, and on some studies a lateral one.
    """

    index: int
    report_id: str
    study_uid: str
    sop_uids: tuple[str, ...]
    patient_id: str
    patient_name: str
    sex: str
    age: int
    text: str
    findings: tuple[Finding, ...]
    lesions: tuple[Lesion, ...]
    study_truth: dict[str, CategoryTruth]
    images: tuple[PhantomImage, ...] = field(repr=False)

    @property
    def image(self) -> NDArray[np.uint16]:
        """Pixels of the frontal image, ``uint16`` ``[size, size]``."""
        return self.images[0].pixels

    @property
    def boxes(self) -> dict[str, Box]:
        """Boxes of the lesions on the frontal image; see `PhantomImage.boxes`."""
        return self.images[0].boxes

    @property
    def sop_uid(self) -> str:
        """SOP instance UID of the frontal image."""
        return self.sop_uids[0]


def generate(
    count: int, seed: int, *, size: int = DEFAULT_SIZE, options: StudyOptions | None = None
) -> Iterator[PhantomStudy]:
    """Yield the first ``count`` studies of a seed.

    Parameters
    ----------
    count
        Number of studies.
    seed
        Names the supply; a non-negative integer.
    size
        Side of the images in pixels, where ``options`` do not say it.
    options
        What the studies are made of.
    """
    for index in range(count):
        yield make_study(seed, index, size=size, options=options)


def make_study(seed: int, index: int, *, size: int = DEFAULT_SIZE, options: StudyOptions | None = None) -> PhantomStudy:
    """Make one study: a pure function of its arguments."""
    options = options or StudyOptions(size=size)
    number = _patient_number(seed, index)
    about = np.random.default_rng([seed, number, 0])
    sex, age = "F" if about.random() < 0.5 else "M", int(about.integers(18, 91))
    exposure = exposure_of(seed, index, options.styles)
    lesions = sample_study(
        seed, index, bedside=exposure.portable, categories=options.categories, prevalence=options.prevalence
    )
    lateral = not exposure.portable and np.random.default_rng([seed, index, 9]).random() < options.lateral
    patient = patient_of(seed, number, sex, age)
    images = draw_study(lesions, patient, exposure, seed, index, size=options.size, lateral=lateral)
    text, findings = write_report(
        lesions,
        np.random.default_rng([seed, index, 4]),
        views=tuple(one.view for one in images),
        sex=sex,
        categories=options.categories,
    )
    return PhantomStudy(
        index=index,
        report_id=f"PH{index:07d}",
        study_uid=_uid(seed, index, "study"),
        sop_uids=tuple(_uid(seed, index, kind) for kind in ("image", "lateral")[: len(images)]),
        patient_id=f"PHP{number:07d}",
        patient_name=f"PHANTOM^{number:04d}",
        sex=sex,
        age=age,
        text=text,
        findings=findings,
        lesions=lesions,
        study_truth=study_truth(lesions, options.categories),
        images=images,
    )


@dataclass(frozen=True)
class PhantomReport:
    """A report without an image: the fields of `PhantomStudy` that it has."""

    index: int
    report_id: str
    study_uid: str
    patient_id: str
    text: str
    findings: tuple[Finding, ...]


def make_report(seed: int, index: int) -> PhantomReport:
    """Make the report of a study that has no image: a pure function of its arguments.

    It names as many findings as reports do, and of every category, while the report of an image stays with what the
    image shows: study ``index`` of `make_study` has another report.
    """
    rng = np.random.default_rng([seed, index, 6])
    text, findings = write_report(thin_out(sample_lesions(rng), rng), rng, with_image=False)
    return PhantomReport(
        index=index,
        report_id=f"PH{index:07d}",
        study_uid=_uid(seed, index, "study"),
        patient_id=f"PHP{_patient_number(seed, index):07d}",
        text=text,
        findings=findings,
    )


def _patient_number(seed: int, index: int) -> int:
    """Patients have one study or two that follow each other: an odd study may belong to the one before it."""
    if index % 2 and np.random.default_rng([seed, index, 5]).random() < _SECOND_STUDY_RATE:
        return index - 1
    return index


def _uid(seed: int, index: int, kind: str) -> str:
    """UID under the root for UUIDs (PS3.5, annex B.2), from a hash so that it comes out the same again."""
    digest = hashlib.sha256(f"medfilip-phantom/{seed}/{index}/{kind}".encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"
