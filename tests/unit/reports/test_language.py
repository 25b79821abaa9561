"""Language: English of any length passes, other languages and scripts are named."""

from __future__ import annotations

import pytest

from medfilip.reports.language import foreign_language

ENGLISH = [
    "Normal chest.",
    "Clear lungs.",
    "No change.",
    "NAD",
    "R/O PNA. C/O SOB. S/P CABG.",
    "RLL PNA, small L PTX.",
    "Cardiomegaly. Edema. Bilateral effusions.",
    "XXXX XXXX XXXX",
    "___",
    "Mild scoliosis; osteophytes; aortic calcification; hyperinflation; cholecystectomy clips.",
    "Señor Núñez: the lungs are clear.",
]
FOREIGN = [
    ("Kein Infiltrat. Herz nicht vergrößert.", "German"),
    ("Cœur de taille normale. Pas d'épanchement pleural.", "French"),
    ("Silueta cardíaca normal. Sin derrame pleural.", "Spanish"),
    ("Área cardíaca normal. Não há derrame. Pulmões sem opacidades.", "Portuguese"),
    ("Non versamento pleurico. Cuore nei limiti della norma.", "Italian"),
    ("Geen infiltraten. Het hart is niet vergroot.", "Dutch"),
    ("Bez zmian ogniskowych w płucach. Serce nie jest powiększone.", "Polish"),
    ("Inga infiltrat. Hjärtat är inte förstorat.", "Swedish"),
    ("Сердце не расширено. Лёгкие без изменений.", "Cyrillic"),
    ("心影不大。两肺清晰。", "Chinese"),
    ("両肺野に異常を認めません。", "Japanese"),
    ("심장 크기는 정상입니다.", "Korean"),
    ("الرئتان سليمتان والقلب طبيعي", "Arabic"),
]


@pytest.mark.parametrize("text", ENGLISH)
def test_english_passes_however_short(text: str) -> None:
    assert foreign_language(text) is None


@pytest.mark.parametrize(("text", "name"), FOREIGN)
def test_other_languages_are_named(text: str, name: str) -> None:
    found = foreign_language(text)
    assert found is not None and found.name == name and found.evidence >= 2


def test_a_language_nobody_listed_is_told_by_the_lack_of_english() -> None:
    found = foreign_language(
        "Sydän on normaalin kokoinen eikä keuhkoissa näy mitään poikkeavaa muutosta tai nestettä pleuratilassa."
    )
    assert found is not None and found.name == "an unknown language"


def test_english_with_a_foreign_sentence_stays() -> None:
    assert foreign_language("The lungs are clear and the heart is normal. No effusion. Sin derrame.") is None
