"""Decoding under a grammar in plain transformers: what vLLM does in its engine, with the same library and grammar.

Legend of tensor names: B rows of a batch, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medfilip.core.errors import ErrorCode, MedfilipError


class GrammarDecoder:
    """Holds what all sentences share: the tokenizer as llguidance sees it.

    Raises
    ------
    MedfilipError
        ``DEPENDENCY_MISSING`` without llguidance, which comes with vLLM.
    """

    def __init__(self, tokenizer: Any) -> None:
        try:
            import llguidance
            import llguidance.hf
        except ImportError as error:
            raise MedfilipError(
                ErrorCode.DEPENDENCY_MISSING,
                "Decoding under a grammar needs llguidance, which is not installed.",
                fix="Install llguidance, or vLLM, which brings it.",
            ) from error
        self._library = llguidance
        self._tokens = llguidance.hf.from_tokenizer(tokenizer)

    def matcher(self, grammar: str) -> Any:
        """Return the state of a reply that nothing is written of yet.

        Raises
        ------
        ValueError
            For a grammar that the library does not read: an error of ours.
        """
        matcher = self._library.LLMatcher(self._tokens, self._library.LLMatcher.grammar_from_lark(grammar))
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        return matcher

    def processor(self, grammars: Sequence[str], prompt_tokens: int) -> GrammarProcessor:
        """Return the logits processor of a batch, a grammar for each row behind prompts of equal width."""
        return GrammarProcessor([self.matcher(grammar) for grammar in grammars], prompt_tokens)


class GrammarProcessor:
    """A logits processor of transformers that leaves each row the tokens its grammar admits."""

    def __init__(self, matchers: Sequence[Any], prompt_tokens: int) -> None:
        self._matchers, self._prompt_tokens = matchers, prompt_tokens

    def __call__(self, ids_BT: Tensor, logits_BV: Tensor) -> Tensor:
        """Mask logits; called once for each step of a batch, from the first on."""
        if ids_BT.shape[1] > self._prompt_tokens:
            for matcher, token in zip(self._matchers, ids_BT[:, -1].tolist(), strict=True):
                if not matcher.is_stopped():
                    matcher.consume_token(token)
        # A matcher that has stopped admits the end alone.
        packed_BW = np.stack([np.frombuffer(matcher.compute_bitmask(), np.uint8) for matcher in self._matchers])
        admitted_BV = np.unpackbits(packed_BW, axis=1, bitorder="little")[:, : logits_BV.shape[1]].astype(bool)
        return logits_BV.masked_fill(~torch.from_numpy(admitted_BV).to(logits_BV.device), float("-inf"))
