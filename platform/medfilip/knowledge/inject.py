"""A finding becomes training texts: its own words plus the visual attributes that fit it.

Every text starts with one clause in a fixed word order (certainty, severity, side, category, site), so that the text
encoder meets the same wording in training and in zero-shot prompts (`medfilip.knowledge.prompts`), and so that a text
that is cut still says what it is about. Attributes follow, the most telling first. Training draws one variant each
epoch: paraphrases, and the same attributes with some dropped, so that no single phrase comes to stand for a category.
Absent findings get texts too: without trained negations a positive-against-negated score inverts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Literal

from medfilip.core.fingerprint import canonical_json
from medfilip.core.ids import hash64
from medfilip.findings.finding import Certainty, Hedge
from medfilip.findings.ontology import Ontology
from medfilip.knowledge.knowledge import Attribute, Entry, Knowledge, severity_rank

InjectionMode = Literal["conditioned", "category", "none"]
"""``conditioned``: attributes by the finding's own severity, site and pattern. ``category``: the authors' form, one
description whatever the finding. ``none``: the finding's own words alone."""

DEFAULT_VARIANTS = 8
MAX_DETAILS = 7
"""Attribute phrases in one text: with the clause about fifty tokens, and the tail says least."""

FINDING_CONTENT = ("category", "certainty", "hedge", "severity", "size", "laterality", "sites", "patterns")
"""The slots that decide the texts of a finding."""

_SIZE_WORDS = {"tiny": "tiny", "small": "small", "medium": "moderate-sized", "large": "large"}
# Few wordings: each more of them costs a small text encoder steps before it tells a negation from a statement. Others
# are shown before images come: `medfilip.knowledge.wordings`.
ABSENT_LEADS = ("no {}", "no evidence of {}")
_UNCERTAIN_LEADS = ("possible {}", "may represent {}", "suspected {}", "questionable {}")
_HEDGED_LEADS = {Hedge.PROBABLE: "probable {}", Hedge.CANNOT_EXCLUDE: "cannot exclude {}"}
_DENIED_AXES: tuple[Literal["density", "shape", "margin"], ...] = ("density", "shape", "margin")
_KEPT_PERCENT = 60
_FEW = 2
_PROPERTY = re.compile(r"(?:\S+ ){0,2}(?:edges?|margins?|borders?|outlines?|walls?)")


def training_texts(
    finding: Mapping[str, object],
    knowledge: Knowledge,
    ontology: Ontology,
    *,
    mode: InjectionMode = "conditioned",
    variants: int = DEFAULT_VARIANTS,
    told: Sequence[str] = (),
) -> list[str]:
    """Write the distinct text variants of a finding, always the same ones in the same order.

    Parameters
    ----------
    finding
        A row with the keys of `medfilip.findings.finding.Finding`; ``category`` and ``certainty`` are required.
    knowledge, ontology
        Where attributes and labels come from.
    mode
        Which attributes are injected.
    variants
        At most so many texts, from 1; fewer where there is less to say.
    told
        Image-specific phrases about the finding (`medfilip.knowledge.drafting`); they make one more variant.

    Returns
    -------
    list of str
        The canonical text first, then the others. A category without an entry has its clauses only. What is dropped
        and in which order variants come depends on the content of the finding alone.
    """
    fixed = list(_canonical(finding, knowledge, ontology, mode))
    if told and finding["certainty"] != Certainty.ABSENT:
        fixed.insert(1, f"{_leads(finding, ontology, mode)[0]}. {', '.join(told)}")
    texts = dict.fromkeys(fixed)
    if mode == "conditioned" and len(texts) < variants:
        for text in islice(_sampled(finding, knowledge, ontology), 4 * variants):
            texts[text] = None
            if len(texts) == variants:
                break
    return list(texts)[: max(1, variants)]


def canonical_texts(
    finding: Mapping[str, object], knowledge: Knowledge, ontology: Ontology, *, mode: InjectionMode = "conditioned"
) -> list[str]:
    """Write the texts of a finding from which nothing is dropped: what evaluation and prompts use.

    The first is the canonical one, which also leads its `training_texts`.
    """
    return list(dict.fromkeys(_canonical(finding, knowledge, ontology, mode)))


def _canonical(
    finding: Mapping[str, object], knowledge: Knowledge, ontology: Ontology, mode: InjectionMode
) -> Iterator[str]:
    entry = knowledge.entry(str(finding["category"]))
    leads = _leads(finding, ontology, mode)
    absent = finding["certainty"] == Certainty.ABSENT
    if mode == "category":
        yield f"{leads[0]}. {entry.descriptions[0]}" if entry is not None and not absent else leads[0]
        return
    details = () if entry is None or mode == "none" else _details(finding, entry, knowledge, ontology)
    if details:
        yield _joined(leads[0], finding, ontology, details)
    yield leads[0]
    if entry is not None and mode == "conditioned" and not absent:
        for turn, description in enumerate(entry.descriptions):
            yield f"{leads[turn % len(leads)]}. {description}"
    yield from leads


def _sampled(finding: Mapping[str, object], knowledge: Knowledge, ontology: Ontology) -> Iterator[str]:
    """Yield texts with some attributes dropped, in turn with paraphrases that carry some of the attributes."""
    entry = knowledge.entry(str(finding["category"]))
    if entry is None:
        return
    content = canonical_json({name: _plain(finding.get(name)) for name in FINDING_CONTENT})
    details = _details(finding, entry, knowledge, ontology)
    leads = _leads(finding, ontology, "conditioned")
    absent = finding["certainty"] == Certainty.ABSENT
    turn = 0
    while details:
        kept = [text for text in details if _drawn(content, str(turn), text) % 100 < _KEPT_PERCENT]
        kept = kept or [details[_drawn(content, str(turn)) % len(details)]]
        lead = leads[turn % len(leads)]
        if absent or turn % 2 == 0:
            yield _joined(lead, finding, ontology, kept)
        else:
            description = entry.descriptions[_drawn(content, str(turn)) % len(entry.descriptions)]
            yield f"{lead}. {description}, {kept[0]}"
        turn += 1


def _drawn(*parts: str) -> int:
    """Return a number that follows from strings alone, from 0: neither Python's hash nor its random generator."""
    return hash64(*parts) + (1 << 63)


def _plain(value: object) -> object:
    """Return a slot's content; an empty slot is the same however it is empty."""
    if not value:
        return None
    return [str(item) for item in value] if isinstance(value, list | tuple) else str(value)


def _leads(finding: Mapping[str, object], ontology: Ontology, mode: InjectionMode) -> list[str]:
    """Return the clauses of a finding, the plain one first."""
    core = (_faithful_phrase if mode == "category" else finding_phrase)(finding, ontology)
    match finding["certainty"]:
        case Certainty.ABSENT:
            forms: tuple[str, ...] = ABSENT_LEADS
        case Certainty.UNCERTAIN:
            hedged = _HEDGED_LEADS.get(Hedge(str(finding["hedge"]))) if finding.get("hedge") else None
            forms = (hedged, *_UNCERTAIN_LEADS) if hedged else _UNCERTAIN_LEADS
        case _:
            forms = ("{}",)
    return [form.format(core) for form in forms]


def finding_phrase(finding: Mapping[str, object], ontology: Ontology) -> str:
    """Write "moderate left patchy consolidation in the lower lobe": the slots but certainty, in their fixed order."""
    words = _degree(finding)
    if finding.get("laterality"):
        words.append(str(finding["laterality"]))
    patterns = finding.get("patterns") or ()
    assert isinstance(patterns, Sequence)
    words.extend(str(pattern) for pattern in patterns)
    category = str(finding["category"])
    words.append(ontology.label(category))
    site = _site_phrase(category, finding.get("sites"), ontology)
    return " ".join(words) + (f" in the {site}" if site else "")


def _faithful_phrase(finding: Mapping[str, object], ontology: Ontology) -> str:
    """Write "severity location category", the order of the authors' code."""
    category = str(finding["category"])
    place = _site_phrase(category, finding.get("sites"), ontology)
    return " ".join(
        filter(None, [*_degree(finding), str(finding.get("laterality") or ""), place, ontology.label(category)])
    )


def _degree(finding: Mapping[str, object]) -> list[str]:
    severity, size = finding.get("severity"), finding.get("size")
    if severity:
        return [str(severity)]
    return [_SIZE_WORDS.get(str(size), str(size))] if size else []


def _site_phrase(category: str, sites: object, ontology: Ontology) -> str:
    """Name the sites that say more than the category does (an effusion is always in the pleura)."""
    assert sites is None or isinstance(sites, Sequence)
    implied = ontology.categories[category].implied_sites if category in ontology.categories else ()
    named = [str(site).replace("_", " ") for site in sites or () if site not in implied]
    return " and ".join(named)


def _details(finding: Mapping[str, object], entry: Entry, knowledge: Knowledge, ontology: Ontology) -> tuple[str, ...]:
    if finding["certainty"] == Certainty.ABSENT:
        return _denied(finding, entry, knowledge, ontology)
    return entry.phrases(finding)[:MAX_DETAILS]


def _denied(finding: Mapping[str, object], entry: Entry, knowledge: Knowledge, ontology: Ontology) -> tuple[str, ...]:
    """Return what the eye would see, to be denied phrase by phrase.

    Only phrases that name things are used: "no less than three centimetres" denies nothing, and "no sharp margin"
    would read as a lesion whose margin is blurred. "No large
    effusion" leaves room for a small one, so a denied degree denies only what belongs to that degree. And what
    several unrelated categories share is not denied: where there is no pacemaker there may be metal all the same.
    """
    degree = severity_rank(finding)
    family = {entry.category} | ontology.ancestors(entry.category) | ontology.descendants(entry.category)

    def deniable(phrase: Attribute) -> bool:
        belongs = degree in phrase.severities if degree else not phrase.conditional
        return belongs and not _PROPERTY.fullmatch(phrase.text) and len(knowledge.users[phrase.text] - family) <= _FEW

    groups = [[phrase.text for phrase in entry.attributes.get(axis, ()) if deniable(phrase)] for axis in _DENIED_AXES]
    rounds = range(max(len(group) for group in groups))
    return tuple(f"no {group[turn]}" for turn in rounds for group in groups if turn < len(group))[:MAX_DETAILS]


def _joined(lead: str, finding: Mapping[str, object], ontology: Ontology, details: Sequence[str]) -> str:
    """Write the details behind the clause; what is absent on one side or at one site is denied there only."""
    where = _where(finding, ontology) if finding["certainty"] == Certainty.ABSENT else ""
    return f"{lead}. {where}{', '.join(details)}"


def _where(finding: Mapping[str, object], ontology: Ontology) -> str:
    side = str(finding.get("laterality") or "")
    side = side if side in ("left", "right") else ""
    site = _site_phrase(str(finding["category"]), finding.get("sites"), ontology)
    if site:
        return f"in the {side} {site} " if side else f"in the {site} "
    return f"on the {side} " if side else ""


def fit_text(text: str, count_tokens: Callable[[str], int], limit: int) -> str:
    """Cut a text at the end of a phrase so that a text encoder takes all that is left of it.

    Phrases go from the end, which says least. The clause before the first full stop is kept whole; only if it alone
    is too long it loses words from its end, never all of them.

    Parameters
    ----------
    count_tokens
        Tokens of a text with the encoder's own tokenizer, special tokens included.
    limit
        Most tokens.

    Returns
    -------
    str
        The text itself if it fits. Cutting a cut text changes nothing.
    """
    if count_tokens(text) <= limit:
        return text
    clause, full_stop, details = text.partition(". ")
    if full_stop:
        ends = [at for at in range(len(details)) if details.startswith((", ", ". "), at)]
        for end in reversed(ends):
            shorter = f"{clause}. {details[:end]}"
            if count_tokens(shorter) <= limit:
                return shorter
    words = clause.split(" ")
    while len(words) > 1 and count_tokens(" ".join(words)) > limit:
        words.pop()
    return " ".join(words)
