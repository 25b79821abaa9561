"""Counting tokens with the two tokenizers the reply format is measured by."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from medfilip.extraction.reply_format import Reply

Count = Callable[[str], int]


def mistral_counter() -> Count:
    """Return a counter with the Tekken tokenizer that ships inside mistral_common."""
    import mistral_common
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    file = sorted((Path(mistral_common.__file__).parent / "data").glob("tekken_*.json"))[-1]
    tokenizer = Tekkenizer.from_file(str(file))
    return lambda text: len(tokenizer.encode(text, bos=False, eos=False))


def own_counter(folder: Path) -> Count:
    """Return a counter with the tokenizer of our own tiny model."""
    from tokenizers import Tokenizer

    from medfilip.extraction.tiny_llm import make_tiny_llm

    tokenizer = Tokenizer.from_file(str(make_tiny_llm(folder) / "tokenizer.json"))
    return lambda text: len(tokenizer.encode(text).ids)


def keyed(reply: Reply) -> str:
    """Write a reply with a one-letter key for each slot that is filled."""
    rows = []
    for item in reply.f:
        marked = {"k": item.category, "t": item.position}
        slots = dict(zip("vdspgahn", item.qualifiers, strict=False))
        rows.append({"m": item.mention, "c": item.certainty.value, **{k: v for k, v in marked.items() if v}, **slots})
    return json.dumps({"f": rows}, separators=(",", ":"), ensure_ascii=False)


def verbose(reply: Reply) -> str:
    """Write a reply as the first version of the format did: whole words for keys, null for absent slots."""
    names = ("severity", "laterality", "site", "pattern", "change")
    rows = []
    for item in reply.f:
        slots = dict.fromkeys(names) | dict(zip(names, item.qualifiers, strict=False))
        certainty = {"yes": "present", "no": "absent", "maybe": "uncertain"}[item.certainty.value]
        category = (item.category or item.mention).replace(" ", "_")
        rows.append({"mention": item.mention, "category": category, "certainty": certainty, **slots})
    return json.dumps({"findings": rows}, separators=(",", ":"), ensure_ascii=False)
