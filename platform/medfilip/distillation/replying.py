"""A student without an engine: greedy replies in plain transformers, in static batches, on a CPU or a GPU.

For evaluation during and after training; jobs run the same folder in vLLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from medfilip.core.errors import ErrorCode
from medfilip.core.fingerprint import fingerprint
from medfilip.distillation.constrained import GrammarDecoder
from medfilip.distillation.encoding import prompt_texts
from medfilip.distillation.shipped import weight_hashes
from medfilip.extraction.copying import Copying
from medfilip.extraction.engine import SentenceResult
from medfilip.extraction.prompt import PromptTemplate, load_prompt, prompt_version
from medfilip.extraction.reply import ReplyReader
from medfilip.findings.ontology import Ontology, load_ontology

Asked = tuple[str, str | None]
"""A sentence in normal form and what it leans on."""


class StudentEngine:
    """Reads sentences with a student.

    Parameters
    ----------
    model, tokenizer
        The student; it is put into eval mode while it replies.
    batch_size
        Sentences that are replied to at once.
    max_tokens
        Budget of one reply.
    copying
        Whether it can only quote the sentence, as in jobs; otherwise it writes what it likes.
    """

    name = "student"

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        prompt: PromptTemplate,
        ontology: Ontology,
        *,
        batch_size: int = 256,
        max_tokens: int = 256,
        weights: str = "",
        copying: bool = False,
    ) -> None:
        self._model, self._tokenizer, self._prompt = model, tokenizer, prompt
        self._reader = ReplyReader(ontology)
        self._batch_size, self._max_tokens, self._weights = batch_size, max_tokens, weights
        self._copying = Copying(ontology) if copying else None
        self._decoder = GrammarDecoder(tokenizer) if copying else None

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu", batch_size: int = 256, copying: bool = True) -> StudentEngine:
        """Load a model folder in single precision; its prompt version comes from its configuration.

        Raises
        ------
        MedfilipError
            ``CHECKPOINT_INVALID`` if the folder lists hashes and a file of it is missing, changed or not listed.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        weights = fingerprint(weight_hashes(folder))
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device)
        tokenizer, prompt = AutoTokenizer.from_pretrained(folder), load_prompt(prompt_version(str(folder)))
        return cls(model, tokenizer, prompt, load_ontology(), batch_size=batch_size, weights=weights, copying=copying)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of weights, prompt, reader, budget and decoding."""
        decided = [self._weights, self._prompt.fingerprint, self._reader.fingerprint, self._max_tokens]
        return fingerprint([*decided, self._copying.fingerprint if self._copying else ""])

    def extract(self, text: str, context: str | None = None) -> SentenceResult:
        """Read one sentence."""
        return self.extract_many([(text, context)])[0]

    def extract_many(self, asked: Sequence[Asked]) -> list[SentenceResult]:
        """Read sentences; one that is too long for the prompt is not asked about."""
        fitting = [number for number, (text, _) in enumerate(asked) if self._prompt.fits(text)]
        replies = dict(zip(fitting, self.replies([asked[number] for number in fitting]), strict=True))
        results: list[SentenceResult] = []
        for number, (text, _) in enumerate(asked):
            if number not in replies:
                results.append(self._reader.failed(ErrorCode.SENTENCE_TOO_LONG))
                continue
            reply, tokens = replies[number]
            cut = tokens >= self._max_tokens
            results.append(self._reader.read(reply, text, truncated=cut, output_tokens=tokens))
        return results

    @torch.inference_mode()
    def replies(self, asked: Sequence[Asked]) -> list[tuple[str, int]]:
        """Return the reply to each sentence with its number of tokens; batches hold prompts of like length."""
        training = self._model.training
        self._model.eval()
        prompts = [
            self._tokenizer.encode(text, add_special_tokens=False)
            for text in prompt_texts(self._tokenizer, self._prompt, asked)
        ]
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        found: list[tuple[str, int]] = [("", 0)] * len(prompts)
        for start in range(0, len(order), self._batch_size):
            numbers = order[start : start + self._batch_size]
            texts = [asked[number][0] for number in numbers]
            for number, reply in zip(numbers, self._generate([prompts[n] for n in numbers], texts), strict=True):
                found[number] = (self._tokenizer.decode(reply, skip_special_tokens=True), len(reply))
        self._model.train(training)
        return found

    def _generate(self, prompts: list[list[int]], texts: list[str]) -> list[list[int]]:
        end, padding, device = self._tokenizer.eos_token_id, self._tokenizer.pad_token_id, self._model.device
        padding = end if padding is None else padding
        width = max(map(len, prompts))
        ids_BT = torch.tensor([[padding] * (width - len(p)) + p for p in prompts], device=device)
        mask_BT = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        constrained = []
        if self._copying is not None and self._decoder is not None:
            constrained = [self._decoder.processor([self._copying.grammar(text) for text in texts], width)]
        written_BT = self._model.generate(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            max_new_tokens=self._max_tokens,
            do_sample=False,
            eos_token_id=end,
            pad_token_id=padding,
            logits_processor=constrained,
        )
        replies = written_BT[:, width:].tolist()
        return [reply[: reply.index(end)] if end in reply else reply for reply in replies]
