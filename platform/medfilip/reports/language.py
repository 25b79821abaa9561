"""Whether a report is in English: by script, function words and plain radiology words, and nothing that needs training.

The rules read English alone, and an English reader finds nothing in a German report and calls it normal. A report is
refused only on evidence: another script, or clearly more words of another language than of English. "Normal chest."
and other reports of a few words pass unless they hold words of another language.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import yaml

_WORD = re.compile(r"[^\W\d_]+")
_MAX_WORDS = 600
_LEAST_ENGLISH = 0.1
_LONG_ENOUGH = 12
"""Words from which the lack of any English is evidence in itself."""

_SCRIPTS = {
    "Cyrillic": ("Ѐ", "ԯ"), "Greek": ("Ͱ", "Ͽ"), "Arabic": ("؀", "ݿ"), "Hebrew": ("\u0590", "\u05ff"),
    "Devanagari": ("ऀ", "ॿ"), "other Indian": ("ঀ", "෿"), "Thai": ("\u0e00", "\u0e7f"), "Korean": ("가", "힣"),
    "Japanese": ("\u3040", "\u30ff"), "Chinese": ("一", "鿿"), "Georgian": ("Ⴀ", "ჿ"), "Armenian": ("\u0530", "֏"),
}  # fmt: skip


@lru_cache(maxsize=1)
def _vocabulary() -> tuple[frozenset[str], dict[str, frozenset[str]]]:
    """Return the words of English and those of the other languages that English does not have."""
    text = (files("medfilip.reports") / "data" / "languages.yaml").read_text(encoding="utf-8")
    words = {name: frozenset(str(listed).split()) for name, listed in yaml.safe_load(text).items()}
    english = words.pop("English")
    # A single plain letter says nothing: "R/O", "c/o".
    return english, {
        name: frozenset(word for word in known - english if len(word) > 1 or not word.isascii())
        for name, known in words.items()
    }


@dataclass(frozen=True)
class Language:
    """The language a text seems to be in, and the words that speak for and against it; no words of the text."""

    name: str
    evidence: int
    english: int


def foreign_language(text: str) -> Language | None:
    """Return the language of a text that is surely not English, else ``None``."""
    words = [word.lower() for word in _WORD.findall(text)[:_MAX_WORDS]]
    if not words:
        return None
    known_english, others = _vocabulary()
    english = sum(word in known_english for word in words)
    if not text.isascii():
        script = _foreign_script(words)
        if script is not None:
            return Language(script[0], script[1], english)
    name, evidence = max(
        ((name, sum(word in known for word in words)) for name, known in others.items()), key=lambda item: item[1]
    )
    if evidence >= 2 and evidence > 1.5 * english:
        return Language(name, evidence, english)
    named = [word for word in words if not set(word) <= {"x"}]
    if len(named) >= _LONG_ENOUGH and english < _LEAST_ENGLISH * len(named):
        return Language("an unknown language", 0, english)
    return None


def _foreign_script(words: list[str]) -> tuple[str, int] | None:
    letters = "".join(words)
    counts = {name: sum(low <= letter <= high for letter in letters) for name, (low, high) in _SCRIPTS.items()}
    if counts["Japanese"] > 0.1 * counts["Chinese"]:
        counts["Japanese"] += counts["Chinese"]
    name = max(counts, key=lambda script: counts[script])
    return (name, counts[name]) if counts[name] > 0.4 * len(letters) else None
