"""What of a model's reply is used: phrases that pass every check, in a reply that still says enough.

A phrase that fails is dropped with a reason and never used; a reply from which too much was dropped is refused whole.
What passes is knowledge nobody has reviewed, and is marked so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import yaml

from medfilip.core.errors import ErrorCode
from medfilip.core.fingerprint import canonical_json, fingerprint
from medfilip.core.replies import MAX_REPLY_CHARACTERS, parse_reply
from medfilip.findings.ontology import Ontology
from medfilip.knowledge.drafting import REPLIES, DescribeReply, DraftReply, Instructions, Kind, request_kind
from medfilip.knowledge.knowledge import AXES, MIN_DESCRIPTIONS, Entry, Knowledge
from medfilip.knowledge.lint import MAX_DESCRIPTION_WORDS, named_categories, negated
from medfilip.storage.schemas import KNOWLEDGE_REPLIES

READER_VERSION = "1"
OK = "ok"
MODEL_SOURCE = "model"
_LEAST_PHRASES, _LEAST_DESCRIBED = 3, 2
_MEASURE = re.compile(r"\d|\b(?:mm|cm|millimet\w+|centimet\w+|inch(?:es)?)\b", re.IGNORECASE)
_SIDE = re.compile(r"\b(left|right|bilateral)\b", re.IGNORECASE)
_STRANGE = re.compile(r"[^a-z0-9 '\-/]", re.IGNORECASE)

Reason = Literal[
    "negation", "measurement", "other_category", "other_side", "other_severity", "banned_word", "characters",
    "too_short", "too_long", "duplicate",
]  # fmt: skip


@dataclass(frozen=True)
class DraftResult:
    """What became of one request.

    Attributes
    ----------
    status
        ``"ok"`` or an `ErrorCode`.
    reply
        The phrases that passed, as JSON in the form of the reply; ``None`` unless the status is ok.
    dropped
        Reasons of phrases that did not.
    raw_reply
        What the model wrote, kept only where nothing of it is used.
    """

    status: str
    reply: str | None = None
    dropped: tuple[Reason, ...] = ()
    raw_reply: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None


class DraftReader:
    """Reads replies (`medfilip.extraction.chat_engine.Reader`)."""

    def __init__(self, instructions: Instructions, knowledge: Knowledge, ontology: Ontology) -> None:
        self._knowledge, self._ontology = knowledge, ontology
        words = "|".join(re.escape(word) for word in instructions.banned)
        self._banned = re.compile(rf"\b(?:{words})\b", re.IGNORECASE)
        self._ids = {item.label: item.id for item in ontology.categories.values()}

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all that decides what a reply becomes."""
        return fingerprint([READER_VERSION, self._ontology.fingerprint, self._knowledge.fingerprint])

    def failed(
        self,
        status: ErrorCode,
        raw_reply: str | None = None,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_tokens: int | None = None,
    ) -> DraftResult:
        """Return the result of a request that has no usable reply."""
        kept = None if raw_reply is None else raw_reply[:MAX_REPLY_CHARACTERS]
        return DraftResult(status, None, (), kept, input_tokens, output_tokens, cached_tokens)

    def read(
        self,
        raw: str,
        request: str,
        *,
        truncated: bool = False,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_tokens: int | None = None,
    ) -> DraftResult:
        """Parse and check a reply; see `medfilip.core.replies` and `check_phrase` for what can be wrong."""
        counted: dict[str, Any] = {
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "cached_tokens": cached_tokens,
        }
        kind = request_kind(request)
        reply = parse_reply(raw, REPLIES[kind], truncated=truncated)
        if isinstance(reply, ErrorCode):
            return self.failed(reply, raw, **counted)
        asked = json.loads(request)[kind]
        kept, dropped = self._kept(reply, kind, asked)
        if not _says_enough(kept, kind):
            return DraftResult(ErrorCode.DRAFT_UNFIT, None, tuple(dropped), raw[:MAX_REPLY_CHARACTERS], **counted)
        return DraftResult(OK, canonical_json(kept), tuple(dropped), **counted)

    def _kept(
        self, reply: DraftReply | DescribeReply, kind: Kind, asked: Any
    ) -> tuple[dict[str, list[str]], list[Reason]]:
        finding = {} if kind == "draft" else asked
        name = asked if kind == "draft" else asked["category"]
        seen: set[str] = set()
        kept: dict[str, list[str]] = {}
        dropped: list[Reason] = []
        for field, texts in reply.model_dump().items():
            kept[field] = []
            for text in (" ".join(str(text).split()).rstrip(".") for text in texts):
                reason = self.check_phrase(text, name, finding, description=field == "descriptions")
                reason = "duplicate" if reason is None and text.casefold() in seen else reason
                if reason is None:
                    seen.add(text.casefold())
                    kept[field].append(text)
                else:
                    dropped.append(reason)
        return kept, dropped

    def check_phrase(
        self, text: str, name: str, finding: Mapping[str, Any], *, description: bool = False
    ) -> Reason | None:
        """Return why a phrase about the category ``name`` must not be used, or ``None``."""
        words = len(text.split())
        others = named_categories(text, self._ids.get(name, ""), self._ontology, self._knowledge.signs)
        severities = {rank for rank in self._ontology.severities if re.search(rf"\b{rank}\b", text, re.IGNORECASE)}
        sides = {side.lower() for side in _SIDE.findall(text)}
        checks: tuple[tuple[Reason, bool], ...] = (
            ("characters", bool(_STRANGE.search(text.replace(",", "") if description else text))),
            ("too_short", words < (5 if description else 1) or len(text) < 3),
            ("too_long", words > (MAX_DESCRIPTION_WORDS if description else 12)),
            ("negation", negated(text)),
            ("measurement", bool(_MEASURE.search(text))),
            ("other_side", bool(sides - {str(finding.get("side"))}) if sides else False),
            ("other_severity", bool(severities - {str(finding.get("severity"))})),
            ("banned_word", bool(self._banned.search(text))),
            ("other_category", any(self._ontology.label(other) not in name for other in others)),
        )
        return next((reason for reason, fails in checks if fails), None)


def _says_enough(kept: Mapping[str, Sequence[str]], kind: Kind) -> bool:
    if kind == "describe":
        return len(kept["phrases"]) >= _LEAST_DESCRIBED
    phrases = sum(len(kept[axis]) for axis in AXES)
    return phrases >= _LEAST_PHRASES and len(kept["descriptions"]) >= MIN_DESCRIPTIONS


def replies_table(ids: pa.ChunkedArray, engine: str, results: Sequence[DraftResult]) -> pa.Table:
    """Build a ``knowledge_replies`` table from results in the order of ``ids``."""
    names = ("status", "reply", "dropped", "raw_reply", "input_tokens", "output_tokens", "cached_tokens")
    types = {field.name: field.type for field in KNOWLEDGE_REPLIES.columns}
    columns = {
        name: pa.array(
            [list(result.dropped) if name == "dropped" else getattr(result, name) for result in results], types[name]
        )
        for name in names
    }
    engines = pa.array([engine] * len(results), pa.string())
    return KNOWLEDGE_REPLIES.conform(pa.table({"sentence_id": ids, "engine": engines, **columns}))


def drafted_entry(category: str, reply: str) -> Entry:
    """Return the entry that a checked reply to a ``draft`` holds."""
    kept = json.loads(reply)
    attributes = {axis: kept[axis] for axis in AXES if kept[axis]}
    content = {"category": category, "review": "unreviewed", "sources": [MODEL_SOURCE], "attributes": attributes}
    return Entry.model_validate({**content, "descriptions": kept["descriptions"]})


def write_drafts(entries: Iterable[Entry], model: str, instructions: Instructions) -> str:
    """Return drafts as YAML in the form of the knowledge files, which the commands about knowledge read."""
    about = f"Drafted by the language model {model} under the instructions {instructions.version}; checked by nobody."
    content = {
        "version": 1,
        "sources": {MODEL_SOURCE: about},
        "entries": {
            entry.category: {
                "review": entry.review,
                "sources": list(entry.sources),
                "attributes": {axis: [item.text for item in items] for axis, items in entry.attributes.items()},
                "descriptions": list(entry.descriptions),
            }
            for entry in entries
        },
    }
    head = "# Drafts of a language model for categories without an entry: to be reviewed before anybody uses them.\n"
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
