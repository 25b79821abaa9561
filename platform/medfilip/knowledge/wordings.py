"""Other ways of saying that a finding is there, or is not.

Training pairs say a finding in few wordings, because more of them cost a small text encoder steps with images in them.
The warm-up of the text tower, whose steps are cheap, shows it these beside them (`medfilip.training.warmup`). Words of
presence and of absence come in pairs: a tower that meets "seen" in "is not seen" alone takes it for a negation.
"""

from __future__ import annotations

from collections.abc import Mapping

from medfilip.findings.finding import Certainty
from medfilip.findings.ontology import Ontology
from medfilip.knowledge.inject import ABSENT_LEADS, finding_phrase

PRESENT_WORDINGS = (
    "there is {}", "with {}", "{} is present", "{} is seen", "positive for {}", "evidence of {}",
    "findings consistent with {}",
)  # fmt: skip
ABSENT_WORDINGS = ("there is no {}", "without {}", "{} is absent", "{} is not seen", "negative for {}")
_FORMS = {Certainty.PRESENT: PRESENT_WORDINGS, Certainty.ABSENT: ABSENT_WORDINGS}
_SHOWN = frozenset({"{}", *ABSENT_LEADS, *PRESENT_WORDINGS, *ABSENT_WORDINGS})


def wordings(finding: Mapping[str, object], ontology: Ontology) -> tuple[str, ...]:
    """Write a finding in the other wordings of its certainty; uncertain ones have none."""
    forms = _FORMS.get(Certainty(str(finding["certainty"])), ())
    phrase = finding_phrase(finding, ontology)
    return tuple(form.format(phrase) for form in forms)


def is_shown(form: str) -> bool:
    """Whether training or its warm-up shows a wording, such as ``"there is no {}."``; a full stop is no difference."""
    return form.removesuffix(".") in _SHOWN
