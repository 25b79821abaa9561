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
from medfilip.phantom.draw import DEFAULT_SIZE, Box, draw
from medfilip.phantom.lesions import CategoryTruth, Lesion, sample_lesions, study_truth, thin_out
from medfilip.phantom.text import write_report

GENERATOR_VERSION = 3
"""Raised whenever the same seed gives other studies than before."""

_SECOND_STUDY_RATE = 0.4


@dataclass(frozen=True, eq=False)
class PhantomStudy:
    """One study: a report, an image and the truth of both.

    Attributes
    ----------
    index
        Number of the study within its seed.
    report_id, study_uid, sop_uid, patient_id, patient_name, sex, age
        Identifiers as a hospital's systems would give them, all invented.
    text
        The whole report.
    findings
        Every statement of the report; evidence spans are code points of ``text``.
    lesions, study_truth
        What the image shows, one by one and by category.
    image
        ``uint16`` ``[size, size]`` with 12-bit values, larger is brighter.
    boxes
        ``Lesion.key`` → ``(row0, col0, row1, col1)``, half open, in pixels of ``image``.
    """

    index: int
    report_id: str
    study_uid: str
    sop_uid: str
    patient_id: str
    patient_name: str
    sex: str
    age: int
    text: str
    findings: tuple[Finding, ...]
    lesions: tuple[Lesion, ...]
    study_truth: dict[str, CategoryTruth]
    image: NDArray[np.uint16] = field(repr=False)
    boxes: dict[str, Box]


def generate(count: int, seed: int, *, size: int = DEFAULT_SIZE) -> Iterator[PhantomStudy]:
    """Yield the first ``count`` studies of a seed.

    Parameters
    ----------
    count
        Number of studies.
    seed
        Names the supply; a non-negative integer.
    size
        Side of the images in pixels.
    """
    for index in range(count):
        yield make_study(seed, index, size=size)


def make_study(seed: int, index: int, *, size: int = DEFAULT_SIZE) -> PhantomStudy:
    """Make one study: a pure function of its arguments."""
    patient = _patient_number(seed, index)
    about = np.random.default_rng([seed, patient, 0])
    lesions = sample_lesions(np.random.default_rng([seed, index, 3]))
    text, findings = write_report(lesions, np.random.default_rng([seed, index, 4]))
    image, boxes = draw(lesions, seed, index, size)
    return PhantomStudy(
        index=index,
        report_id=f"PH{index:07d}",
        study_uid=_uid(seed, index, "study"),
        sop_uid=_uid(seed, index, "image"),
        patient_id=f"PHP{patient:07d}",
        patient_name=f"PHANTOM^{patient:04d}",
        sex="F" if about.random() < 0.5 else "M",
        age=int(about.integers(18, 91)),
        text=text,
        findings=findings,
        lesions=lesions,
        study_truth=study_truth(lesions),
        image=image,
        boxes=boxes,
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
