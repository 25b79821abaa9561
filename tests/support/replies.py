"""Realistic replies to measure the reply format on: a written set, and the rules' findings over synthetic reports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from medfilip.extraction.lexicon import LexiconEngine
from medfilip.extraction.names import Names
from medfilip.extraction.reply_format import Reply, ReplyFinding
from medfilip.extraction.reply_writer import reply_of
from medfilip.findings.ontology import load_ontology
from medfilip.phantom.study import make_study
from medfilip.reports.sections import split_sections
from medfilip.reports.sentences import report_sentences

FILE = Path(__file__).with_name("replies.yaml")


def written_replies() -> list[tuple[str, Reply]]:
    """Return the written sentences with their replies."""
    entries = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return [(entry["s"], Reply(f=tuple(_finding(item) for item in entry["f"]))) for entry in entries]


def _finding(item: dict[str, Any]) -> ReplyFinding:
    """Return a finding written with a key for each slot (see the file) in the form of a reply."""
    words = [item.get("h"), item.get("v"), f"{item['mm']} mm" if "mm" in item else None, item.get("n"), item.get("d")]
    words += [*item.get("s", ()), *item.get("p", ()), item.get("g"), item.get("a")]
    return ReplyFinding(
        mention=item["m"],
        certainty=item["c"],
        category=item.get("k"),
        position=item.get("t"),
        qualifiers=tuple(str(word) for word in words if word is not None),
    )


def rule_replies(studies: int, seed: int = 11) -> Iterator[tuple[str, Reply]]:
    """Yield distinct sentences of synthetic reports with the reply that says what the rules find in them."""
    names, engine, seen = Names(load_ontology()), LexiconEngine(), set()
    for number in range(studies):
        text = make_study(seed, number).text
        for sentence in report_sentences(text, split_sections(text)):
            if sentence.text not in seen:
                seen.add(sentence.text)
                yield sentence.text, reply_of(sentence.text, engine.extract(sentence.text, None).findings, names)
