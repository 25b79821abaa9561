"""A language model's reply as text → a checked model, or the code of why it cannot be used.

Schema-constrained decoding makes most replies valid; truncation, refusals and servers without a schema break some.
A reply is used whole or not at all: half a reply is half a truth that looks whole.
"""

from __future__ import annotations

import re
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from medfilip.core.errors import ErrorCode

MAX_REPLY_CHARACTERS = 20_000

_FENCE = re.compile(r"^```(?:json)?\s*(.*?)\s*```$", re.DOTALL)
_REFUSAL = re.compile(
    r"\b(?:sorry|cannot|can't|can not|unable|won't|not able to|as an? (?:ai|language model)|apologi[sz]e)\b",
    re.IGNORECASE,
)

ModelT = TypeVar("ModelT", bound=BaseModel)


def parse_reply(raw: str, model: type[ModelT], *, truncated: bool) -> ModelT | ErrorCode:
    """Validate a reply in JSON, fenced or not; ``truncated`` says that its budget was spent.

    Returns
    -------
    model or ErrorCode
        ``reply_empty``, ``reply_truncated``, ``reply_refused`` or ``reply_invalid`` for one that cannot be used.
    """
    text = raw.strip()
    if not text:
        return ErrorCode.REPLY_TRUNCATED if truncated else ErrorCode.REPLY_EMPTY
    fenced = _FENCE.match(text)
    try:
        if len(raw) > MAX_REPLY_CHARACTERS:
            raise ValueError
        return model.model_validate_json(fenced.group(1) if fenced else text)
    except (ValidationError, ValueError):
        if truncated:
            return ErrorCode.REPLY_TRUNCATED
        return ErrorCode.REPLY_REFUSED if text[0] not in "{[`" and _REFUSAL.search(text) else ErrorCode.REPLY_INVALID
