"""What is asked about a study and what is answered, the same for library, endpoint and batch job."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from medfilip.answers import Abstention, DiagnosedFinding
from medfilip.knowledge.prompts import Prompts
from medfilip.model.calibration import Rule

HeatMaps = Literal["none", "present", "all"]
"""Which findings get a heat map: none, those that are called present, or every one."""


@dataclass(frozen=True)
class Described:
    """A label that the ontology does not know, told by what it looks like.

    Attributes
    ----------
    name
        As it is answered.
    attributes
        Short visual phrases.
    """

    name: str
    attributes: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> Described:
        """Read "NAME: phrase; phrase", as requests and commands write it.

        Raises
        ------
        ValueError
            Without a name or a phrase.
        """
        name, _, rest = text.partition(":")
        phrases = tuple(phrase.strip() for phrase in rest.split(";") if phrase.strip())
        if not name.strip() or not phrases:
            raise ValueError("a described label is a name and visual phrases")
        return cls(name.strip(), phrases)

    def prompts(self) -> Prompts:
        """Write its prompts in the word order of the training texts."""
        details, denied = ", ".join(self.attributes), ", ".join(f"no {text}" for text in self.attributes)
        return Prompts(
            positive=(f"{self.name}. {details}", self.name),
            negative=(f"no {self.name}. {denied}", f"no {self.name}", f"no evidence of {self.name}"),
        )


@dataclass(frozen=True)
class Question:
    """Labels, and what is to be said about them.

    Attributes
    ----------
    labels
        Ontology ids, names or short texts; empty for the categories the model was calibrated for.
    described
        Further labels, in words.
    operating_point
        Rule of the thresholds; ``None`` for the one the checkpoint was calibrated with.
    threshold
        One probability for all labels instead.
    attributes
        How many of its best matching visual attributes each finding tells.
    heat_maps
        Which findings get a heat map.
    """

    labels: tuple[str, ...] = field(default=(), repr=False)
    described: tuple[Described, ...] = field(default=(), repr=False)
    operating_point: Rule | None = None
    threshold: float | None = None
    attributes: int = 0
    heat_maps: HeatMaps = "none"


@dataclass(frozen=True)
class Answered:
    """What the model says about one study."""

    findings: tuple[DiagnosedFinding, ...]
    abstentions: tuple[Abstention, ...]
    unfamiliarity: float | None
    label_set: str
