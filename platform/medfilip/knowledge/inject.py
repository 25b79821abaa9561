"""A finding becomes training texts: its own words plus the visual attributes that fit it.

Every text starts with one clause in a fixed word order (certainty, severity, side, category, site), so that the text
encoder meets the same wording in training and in zero-shot prompts (`medfilip.knowledge.prompts`). The variants of a
finding stand for attribute drop-out and paraphrasing: training draws one of them each epoch. Absent findings get
texts too: without trained negations a positive-against-negated score inverts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medfilip.findings.finding import Certainty
from medfilip.findings.ontology import Ontology
from medfilip.knowledge.knowledge import Entry, Knowledge

_SIZE_WORDS = {"tiny": "tiny", "small": "small", "medium": "moderate-sized", "large": "large"}


def training_texts(finding: Mapping[str, object], knowledge: Knowledge, ontology: Ontology) -> list[str]:
    """Write the distinct text variants of a finding, always the same ones in the same order.

    Parameters
    ----------
    finding
        A row with the keys of `medfilip.findings.finding.Finding`; ``category`` and ``certainty`` are required.
    knowledge, ontology
        Where attributes and labels come from.

    Returns
    -------
    list of str
        The plain clause first; then the clause with all fitting attributes, with halves of them, and with each
        paraphrase. A category without an entry has the plain clauses only.
    """
    entry = knowledge.entry(str(finding["category"]))
    clauses = _clauses(finding, ontology)
    if entry is None:
        return clauses
    if finding["certainty"] == Certainty.ABSENT:
        details = _denied(entry)
    else:
        details = _told(entry.phrases(finding), entry.descriptions)
    injected = [f"{clause}. {detail}" for clause in clauses for detail in details]
    return list(dict.fromkeys([*clauses, *injected]))


def _clauses(finding: Mapping[str, object], ontology: Ontology) -> list[str]:
    core = finding_phrase(finding, ontology)
    match finding["certainty"]:
        case Certainty.ABSENT:
            return [f"no {core}", f"no evidence of {core}"]
        case Certainty.UNCERTAIN:
            return [f"possible {core}"]
        case _:
            return [core]


def finding_phrase(finding: Mapping[str, object], ontology: Ontology) -> str:
    """Write "moderate left patchy consolidation in the lower lobe": the slots but certainty, in their fixed order."""
    severity, size, side = finding.get("severity"), finding.get("size"), finding.get("laterality")
    words = [str(severity)] if severity else []
    if size and not severity:
        words.append(_SIZE_WORDS.get(str(size), str(size)))
    if side:
        words.append(str(side))
    patterns = finding.get("patterns") or ()
    assert isinstance(patterns, Sequence)
    words.extend(str(pattern) for pattern in patterns)
    category = str(finding["category"])
    words.append(ontology.label(category))
    site = _site_phrase(category, finding.get("sites"), ontology)
    return " ".join(words) + (f" in the {site}" if site else "")


def _site_phrase(category: str, sites: object, ontology: Ontology) -> str:
    """Name the sites that say more than the category does (an effusion is always in the pleura)."""
    assert sites is None or isinstance(sites, Sequence)
    implied = ontology.categories[category].implied_sites if category in ontology.categories else ()
    named = [str(site).replace("_", " ") for site in sites or () if site not in implied]
    return " and ".join(named)


def _told(phrases: Sequence[str], descriptions: Sequence[str]) -> list[str]:
    halves = (phrases, phrases[::2], phrases[1::2])
    return [", ".join(half) for half in halves if half] + list(descriptions)


def _denied(entry: Entry) -> list[str]:
    """Deny what the eye would see, phrase by phrase: a description after "no …" would read as if it were there.

    Only the axes whose phrases name things are used; "no less than three centimetres" denies nothing.
    """
    axes = (entry.attributes.get("density", ()), entry.attributes.get("shape", ()), entry.attributes.get("margin", ()))
    seen = [phrase.text for phrases in axes for phrase in phrases if not phrase.conditional]
    return [", ".join(f"no {phrase}" for phrase in half) for half in (seen[::2], seen[1::2]) if half]
