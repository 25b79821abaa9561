"""The grammar of synthetic sentences: frames, plain sentences and paraphrases, loaded from ``data`` and checked.

What the files hold is described at their top. Nothing in them was taken from a report.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Any, Literal, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from medfilip.core.fingerprint import fingerprint
from medfilip.findings.finding import Certainty, Change, Hedge
from medfilip.findings.ontology import Ontology
from medfilip.phantom.dice import Dice

State: TypeAlias = Literal["present", "absent", "possible", "probable", "exclude", "versus", "resolved", "none"]

STATES: dict[str, tuple[Certainty, Hedge | None, Change | None]] = {
    "present": (Certainty.PRESENT, None, None),
    "absent": (Certainty.ABSENT, None, None),
    "possible": (Certainty.UNCERTAIN, Hedge.POSSIBLE, None),
    "probable": (Certainty.PRESENT, Hedge.PROBABLE, None),
    "exclude": (Certainty.UNCERTAIN, Hedge.CANNOT_EXCLUDE, None),
    "versus": (Certainty.PRESENT, Hedge.VERSUS, None),
    "resolved": (Certainty.ABSENT, None, Change.RESOLVED),
}
"""Certainty, hedge and change of a state; ``none`` names a finding without stating it."""

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_TOKEN = re.compile(r"\{(?P<slot>\w+-?)\}|\*(?P<cue>[^*]+)\*|<(?P<mention>[^>]+)>|(?P<text>[^{*<]+)")
_ASSERTIONS: dict[str, State] = {"-": "absent", "?": "possible"}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Frames(_Strict):
    """Frames of one kind: what they state, and how often they are drawn beside the others.

    ``context`` asks for a sentence before this one; ``beyond`` says that rules read such a sentence wrongly.
    """

    phenomenon: str
    weight: float
    states: tuple[State, ...]
    frames: tuple[str, ...]
    kind: Literal["any", "device"] = "any"
    change: Change | None = None
    context: Literal["present"] | None = None
    beyond: bool = False


class Family(_Strict):
    """Sites at which some categories can be, the usual ones first."""

    sites: tuple[str, ...]
    categories: tuple[str, ...]


class Paraphrase(_Strict):
    """A finding in words that are no term of it."""

    category: str
    state: State
    frame: str


class Grammar(_Strict):
    """All data of the generator."""

    frames: tuple[Frames, ...]
    weights: dict[str, float]
    denied: tuple[str, ...]
    observations: tuple[str, ...]
    explanations: tuple[str, ...]
    families: dict[str, Family]
    counted: frozenset[str]
    measured: frozenset[str]
    aged: frozenset[str]
    patterned: frozenset[str]
    sized: frozenset[str]
    tips: dict[str, tuple[str, ...]]
    words: dict[str, tuple[str, ...]]
    plural_heads: frozenset[str]
    kept_words: frozenset[str]
    plain: tuple[str, ...]
    clauses: tuple[str, ...]
    paraphrases: tuple[Paraphrase, ...]

    @model_validator(mode="after")
    def _check_frames(self) -> Grammar:
        for kind in self.frames:
            for frame in kind.frames:
                named = {int(name[0]) for name in re.findall(r"\{(\d-?)\}", frame)}
                if not named <= set(range(len(kind.states))) or ("{list}" in frame and 0 in named):
                    raise ValueError(f"the frame '{frame}' does not fit its {len(kind.states)} states")
        return self

    @cached_property
    def family_of(self) -> dict[str, Family]:
        """Family of each category that has a place of its own."""
        return {category: family for family in self.families.values() for category in family.categories}

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the whole content; the order in which a set is written differs between processes."""
        content = self.model_dump(mode="json")
        sets = {name for name in content if isinstance(getattr(self, name), frozenset)}
        return fingerprint({name: sorted(value) if name in sets else value for name, value in content.items()})

    def check(self, ontology: Ontology) -> None:
        """Raise ``ValueError`` if the data names a category or a site that the ontology does not know."""
        named = {*self.weights, *self.denied, *self.observations, *self.explanations, *self.tips, *self.family_of}
        named |= self.counted | self.measured | self.aged | self.patterned | self.sized
        named |= {paraphrase.category for paraphrase in self.paraphrases}
        sites = {site for family in self.families.values() for site in family.sites}
        unknown = sorted((named - ontology.categories.keys()) | (sites - ontology.sites.keys()))
        if unknown:
            raise ValueError(f"the grammar names what the ontology does not know: {unknown}")


def expand(frame: str, dice: Dice) -> str:
    """Choose among the alternatives of a frame, the first ones preferred in two of three draws."""
    if "[" not in frame:
        return frame

    def choose(match: re.Match[str]) -> str:
        options: list[str] = match.group(1).split("|")
        return dice.favour(options) if dice.chance(0.67) else dice.pick(options)

    return _CHOICE.sub(choose, frame)


def pieces(frame: str) -> Iterator[tuple[str, str]]:
    """Yield (kind, words) of an expanded frame in order; kinds are ``slot``, ``cue``, ``mention`` and ``text``."""
    for match in _TOKEN.finditer(frame):
        kind = match.lastgroup
        assert kind is not None
        yield kind, match[kind].strip()


@lru_cache(maxsize=1)
def load_grammar() -> Grammar:
    """Load and check the grammar that ships with the package."""
    grammar, plain, told = (_read(name) for name in ("grammar.yaml", "plain.yaml", "paraphrases.yaml"))
    paraphrases = [
        Paraphrase(category=category, state=_ASSERTIONS.get(text[0], "present"), frame=text.lstrip("-? "))
        for category, texts in told.items()
        for text in texts
    ]
    return Grammar.model_validate({**grammar, **plain, "paraphrases": paraphrases})


def _read(name: str) -> dict[str, Any]:
    text = (files("medfilip.distillation") / "data" / name).read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content
