"""Words of report text: tokens with their place, and the folding that makes plurals, spellings and typing errors one.

The same folding is applied to the lexicon when it is compiled and to text when it is read, so that it need not know
whether a word exists: both sides meet in the same form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

TOKEN = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?\d*|\d+(?:\.\d+)?|_+|(?<!\S)-+(?!\S)|[^\s\w-]")
"""A word with the digits that end it ("t12"), a number, a run of blanks ("___"), a free-standing dash, or a mark.

A hyphen inside a word separates words: "air-space" and "air space" are the same two tokens.
"""

PLACEHOLDER = re.compile(r"x{3,}|_+")
"""What stands for a word that was removed from a text."""

NUMBER = "#"
"""What every number is folded to."""

MIN_TYPO_LENGTH = 8
_MIN_REPLACED_LENGTH = 10  # short real words often differ from a term by one letter; long ones seldom
_MAX_LEARNED = 200_000

_IRREGULAR = {
    "apices": "apex",
    "apexes": "apex",
    "hila": "hilum",
    "hili": "hilum",
    "hilus": "hilum",
    "bronchi": "bronchus",
    "sulci": "sulcus",
    "foci": "focus",
    "atria": "atrium",
    "septa": "septum",
    "media": "media",
    "diagnoses": "diagnosis",
    "metastases": "metastasis",
    "prostheses": "prosthesis",
    "stenoses": "stenosis",
    "opacites": "opacity",
    "calcium": "calcium",
    "calculi": "calculus",
    "sequelae": "sequela",
    "bony": "bony",
    "lobes": "lobe",
    "infiltrates": "infiltrate",
}
_PLURAL_ENDINGS = (
    ("thoraces", "thorax"),
    ("mata", "ma"),
    ("brae", "bra"),
    ("ullae", "ulla"),
    ("eurae", "eura"),
    ("ectases", "ectasis"),
    ("ies", "y"),
    ("sses", "ss"),
    ("xes", "x"),
    ("ches", "ch"),
    ("shes", "sh"),
)
_BRITISH = (
    ("oedema", "edema"),
    ("haem", "hem"),
    ("oesoph", "esoph"),
    ("anaem", "anem"),
    ("tumour", "tumor"),
    ("centre", "center"),
    ("litre", "liter"),
    ("metre", "meter"),
    ("calibre", "caliber"),
    ("grey", "gray"),
    ("fibre", "fiber"),
    ("aluminium", "aluminum"),
    ("paed", "ped"),
    ("ischaem", "ischem"),
    ("colour", "color"),
    ("catheteris", "catheteriz"),
    ("mineralis", "mineraliz"),
    ("visualis", "visualiz"),
    ("cephalis", "cephaliz"),
    ("localis", "localiz"),
    ("generalis", "generaliz"),
    ("organis", "organiz"),
    ("hyperlucenc", "hyperlucenc"),
)
_SHORT = 3


def tokens(text: str) -> list[str]:
    """Return the tokens of a text in normal form."""
    return TOKEN.findall(text)


def token_starts(text: str, found: Iterable[str]) -> list[int]:
    """Return where each token of `tokens` starts; cheaper than match objects where few sentences need it."""
    starts: list[int] = []
    add, index = starts.append, text.index
    at = 0
    for token in found:
        at = index(token, at)
        add(at)
        at += len(token)
    return starts


def fold(word: str) -> str:
    """Return the folded form of a lower-case word: singular, American spelling, straight apostrophe."""
    if len(word) <= _SHORT or not word.isalpha():
        return word.replace("’", "'")
    known = _IRREGULAR.get(word)
    if known is not None:
        return known
    for british, american in _BRITISH:
        if british in word:
            word = word.replace(british, american)
    for ending, singular in _PLURAL_ENDINGS:
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word.removesuffix(ending) + singular
    if word[-1] == "s" and word[-2] not in "sui":
        return word[:-1]
    return word


def is_plural(word: str) -> bool:
    """Whether a lower-case word is a plural by its form."""
    return (
        word not in ("apex", "hilus")
        and (word in _IRREGULAR or word.endswith(("s", "ae", "mata")))
        and fold(word) != word
    )


class WordFolder(dict[str, str]):
    """Text word → lexicon word, or ``""`` for a word the lexicon does not know; learns as it reads.

    A long unknown word that is one typing error (a letter too many, missing, wrong, or two exchanged) away from
    exactly one lexicon word of the same first letter stands for that word.
    """

    def __init__(self, vocabulary: Iterable[str], not_typos: Iterable[str] = ()) -> None:
        super().__init__()
        self._vocabulary = frozenset(vocabulary)
        self._not_typos = frozenset(not_typos)
        self._deletions: dict[str, set[str]] = {}
        for word in self._vocabulary:
            if len(word) >= MIN_TYPO_LENGTH and word.isalpha():
                for shorter in {word, *_deletions(word)}:
                    self._deletions.setdefault(shorter, set()).add(word)

    def __missing__(self, word: str) -> str:
        known = self._resolve(word)
        if len(self) < _MAX_LEARNED:
            self[word] = known
        return known

    def _resolve(self, word: str) -> str:
        if word[0].isdigit():
            return NUMBER
        folded = fold(word)
        if folded in self._vocabulary:
            return folded
        if len(folded) < MIN_TYPO_LENGTH or not folded.isalpha() or folded in self._not_typos:
            return ""
        near = {
            candidate
            for shorter in {folded, *_deletions(folded)}
            for candidate in self._deletions.get(shorter, ())
            if candidate[0] == folded[0] and _one_error(candidate, folded)
        }
        return near.pop() if len(near) == 1 else ""


def _deletions(word: str) -> Iterator[str]:
    for at in range(1, len(word)):
        yield word[:at] + word[at + 1 :]


def _one_error(a: str, b: str) -> bool:
    """Whether two words differ by one letter added, dropped or replaced, or by two neighbours exchanged."""
    if len(a) != len(b):
        return True  # they meet after one deletion
    wrong = [at for at, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
    if len(wrong) == 1:
        return len(a) >= _MIN_REPLACED_LENGTH
    return len(wrong) == 2 and wrong[1] == wrong[0] + 1 and a[wrong[0]] == b[wrong[1]] and a[wrong[1]] == b[wrong[0]]
