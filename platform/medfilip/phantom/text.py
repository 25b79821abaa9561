"""Synthetic reports: a small grammar of how radiologists write, with the exact truth of every statement.

What counts as truth, and is deliberately narrow:

- Only FINDINGS and IMPRESSION (whatever they are called) state findings. What INDICATION, TECHNIQUE and COMPARISON
  name is a question or history; advice is none either.
- A negated finding is absent; "heart size is normal" denies cardiomegaly, "the lungs are clear" denies lung opacity
  (inferred) and says nothing about nodules by name. Normal mediastinal or hilar contours and vessels deny widening,
  enlargement and congestion; other sentences of normality state no finding. What has resolved, or is "no longer seen",
  is absent and resolved.
- "Probable" and each side of a "versus" state a finding (present, hedged); "possible", "may represent" and "cannot be
  excluded" leave it open.
- A slot is filled only by words of the same statement: the impression repeats a finding as it is written there. In a
  coordination a word holds for what it grammatically belongs to: "bilateral effusions and atelectasis" are both
  bilateral, "left effusion with adjacent atelectasis" says no side of the atelectasis, and "left greater than right"
  is no side beside "bilateral". "RLL" is a side and a site, "bibasilar" both too.
- Misspelt words mean what they were meant to; capitals and British spelling change nothing.
"""

from __future__ import annotations

import numpy as np

from medfilip.findings.finding import Finding
from medfilip.phantom import wording
from medfilip.phantom.claims import Claim, make_claims, state_claim, state_extra
from medfilip.phantom.denials import contradicts, denial_groups, deny, deny_one_side, state_normal
from medfilip.phantom.dice import Dice
from medfilip.phantom.draft import Draft
from medfilip.phantom.extras import Extra, load_extras, unrelated
from medfilip.phantom.lesions import CATEGORIES, Lesion
from medfilip.phantom.writer import ReportWriter

TYPO_RATE = 0.012
"""Share of sentences with findings in which a word is misspelt."""


def write_report(
    lesions: tuple[Lesion, ...],
    rng: np.random.Generator,
    *,
    typos: float = TYPO_RATE,
    with_image: bool = True,
    views: tuple[str, ...] = ("PA",),
    sex: str | None = None,
    categories: tuple[str, ...] = CATEGORIES,
) -> tuple[str, tuple[Finding, ...]]:
    """Write the report of a study.

    Parameters
    ----------
    lesions
        What the image shows; all of it is reported, some of it with a hedge.
    rng
        Decides on wording, on what the report names beside the lesions, on which absent categories are denied, and on
        a rare doubtful finding the image lacks.
    typos
        Share of statements with a misspelt word.
    with_image
        Whether the report belongs to an image: then it says nothing that the image would contradict, and less that
        the image does not show.
    views
        ViewPosition of the images, if there are any: the report names no other.
    sex
        Of the patient, ``F`` or ``M``; ``None`` leaves it open.
    categories
        What the images can show: findings of the text alone are kin to none of them.

    Returns
    -------
    text
        The whole report.
    findings
        Every statement of FINDINGS and IMPRESSION in the order of the text; spans are offsets into ``text``.
    """
    dice = Dice(rng)
    style = wording.draw_style(dice)
    known_views = views if with_image else None
    front, has_prior = wording.front_matter(style, dice, known_views, sex)
    shown = frozenset(lesion.category for lesion in lesions)
    writer = ReportWriter(front, dice=dice, typos=typos)
    report = Draft(writer, dice, style, has_prior, detail=0.5, views=known_views, shown=shown)
    claims = make_claims(lesions, report)
    extras = _draw_extras(dice, with_image=with_image, categories=categories)
    report.open(style.heading.format(style.names[0]))
    _findings_section(report, claims, extras, lesions)
    report.writer.plain("\n\n" if style.mimic else "\n")
    report.open(style.heading.format(style.names[1]))
    _impression_section(report, claims, extras)
    text = report.writer.text
    return text.upper() if style.upper else text, tuple(report.writer.findings)


def _draw_extras(dice: Dice, *, with_image: bool, categories: tuple[str, ...]) -> list[Extra]:
    if not dice.chance(0.45 if with_image else 0.62):
        return []
    known = unrelated(categories) if with_image else load_extras()
    count = 1 + dice.chance(0.4) + (0 if with_image else dice.chance(0.3) + dice.chance(0.15))
    return dice.some(known, count)


def _findings_section(report: Draft, claims: list[Claim], extras: list[Extra], lesions: tuple[Lesion, ...]) -> None:
    """Write heart, lungs, pleura and bones: what is there, then what is not."""
    dice = report.dice
    for claim in sorted(claims, key=lambda one: one.category != "cardiomegaly"):
        state_claim(report, claim, brief=False)
    for extra in extras:
        state_extra(report, extra, brief=False)
    claimed = {claim.category for claim in claims} | report.shown
    denied = [category for category in CATEGORIES if category not in claimed and dice.chance(0.72)]
    for group in denial_groups(denied, claimed, {extra.category for extra in extras}, report):
        deny(report, group)
    deny_one_side(report, lesions, claimed)
    told: set[str] = set()
    for chance in (0.55, 0.3, 0.12):
        sentence = _normal_sentence(report)
        if sentence is not None and sentence not in told and (dice.chance(chance) or not report.sentences):
            state_normal(report, sentence)
            told.add(sentence)


def _normal_sentence(report: Draft) -> str | None:
    """Return a sentence of normality that the images bear out; ``None`` if they show too much to find one."""
    for _ in range(20):
        sentence = wording.normal_sentence(report.dice)
        if not contradicts(sentence, report.shown):
            return sentence
    return None


def _impression_section(report: Draft, claims: list[Claim], extras: list[Extra]) -> None:
    dice, writer = report.dice, report.writer
    told = [extra for extra in extras if dice.chance(0.3)]
    total = len(claims) + len(told)
    if not total or (not claims and dice.chance(0.5)):
        report.plain(dice.favour(wording.SUMMARIES))
        return
    numbered = total > 1 and report.style.numbered
    for position in range(total):
        report.joinable = False
        if numbered:
            lead = "" if not position else "\n" if report.style.mimic else " "
            writer.plain(f"{lead}{position + 1}. ")
        if position < len(claims):
            state_claim(report, claims[position], brief=True)
        else:
            state_extra(report, told[position - len(claims)], brief=False)
    if dice.chance(0.12):
        report.plain(wording.advice(dice))
