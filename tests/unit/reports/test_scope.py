"""Scope: radiographs of the chest stay, whatever they mention; other anatomy and other modalities are told apart."""

from __future__ import annotations

import pytest

from medfilip.reports.scope import out_of_scope
from medfilip.reports.sections import split_sections


def scope(text: str, title: str | None = None) -> str | None:
    return out_of_scope(text, split_sections(text), title)


@pytest.mark.parametrize(
    "text",
    [
        "Normal.",
        "No change.",
        "Clear lungs.",
        "EXAM: CHEST PA AND LATERAL\nCOMPARISON: CT chest\nFINDINGS: Clear. Bowel gas pattern is normal.",
        "FINDINGS: Left shoulder arthroplasty. The lungs are clear.",
        "INDICATION: knee replacement\nFINDINGS: Clear lungs.\nIMPRESSION: Normal.",
        "FINDINGS: Nodule at the left base. CT of the chest with contrast is recommended.",
        "Degenerative changes of the shoulders and the cervical spine.",
        "TECHNIQUE: Supine chest and abdomen.\nFINDINGS: Tube in the stomach. Lungs clear. Bowel gas normal.",
        "IMPRESSION: Clips after gallbladder surgery. No effusion. Liver and spleen are not enlarged.",
        "FINDINGS: As seen on the coronal and sagittal reformats of the CT with contrast, the nodule is stable.",
    ],
)
def test_chest_radiographs_stay(text: str) -> None:
    assert scope(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "RIGHT KNEE, TWO VIEWS\nNo fracture. Small joint effusion.",
        "Right knee, two views. No fracture. Small joint effusion.",
        "EXAM: CT ABDOMEN AND PELVIS WITH CONTRAST\nFINDINGS: Lung bases clear. No pleural effusion. Heart normal.",
        "EXAMINATION: MRI BRAIN\nFINDINGS: No infarct.",
        "TECHNIQUE: Single AP view of abdomen\nFINDINGS: Nonobstructive bowel gas pattern.",
        "ABDOMINAL ULTRASOUND: The liver is normal.",
        "FINDINGS: The patella and the tibia are intact. No joint effusion.",
    ],
)
def test_other_anatomy_is_told(text: str) -> None:
    assert scope(text) == "not_chest"


@pytest.mark.parametrize(
    "text",
    [
        "EXAM: CT CHEST WITHOUT CONTRAST\nFINDINGS: 4 mm nodule. No effusion.",
        "CT of the chest. There is a nodule in the left lung.",
        "FINDINGS: Axial images with intravenous contrast and coronal reformats. The lungs are clear. No effusion.",
    ],
)
def test_other_modalities_are_told(text: str) -> None:
    assert scope(text) == "not_radiograph"


def test_a_title_of_its_own_decides() -> None:
    assert scope("No acute abnormality.", "CT HEAD") == "not_chest"
    assert scope("No acute abnormality.", "CHEST (PORTABLE AP)") is None
    assert scope("The liver is normal. Spleen normal.", "CHEST (PA AND LAT)") is None
