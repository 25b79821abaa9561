"""Students: small Llama-style models made here with a tokenizer of their own, or an adapter on a given model.

Either way a plain Hugging Face folder comes out, which vLLM and transformers load. Its ``config.json`` names the prompt
version that it was trained on (`medfilip.extraction.prompt.PROMPT_KEY`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import Settings
from medfilip.distillation.base import base_folder
from medfilip.extraction.prompt import PROMPT_KEY
from medfilip.extraction.tiny_llm import CHAT_TEMPLATE, SPECIAL_TOKENS

MOST_PARAMETERS = 15_000_000
CONTEXT = 1_024
"""Tokens of the longest row that a student is trained on."""
POSITIONS = 2_048
"""Positions that its configuration admits: what engines ask for by default. Rotary positions need no weights."""

_PIECES = r"[A-Za-z]+|\d|\s|[^\w\s]+|[^A-Za-z\d\s]"
"""Words, digits, blanks and marks are pieces of their own: a word has the same tokens within a sentence and behind a
quote, so that to quote it is to copy tokens."""


class StudentSettings(Settings):
    """Shape of a student that is made here."""

    vocabulary: int = Field(4_096, ge=300, le=65_536, description="tokens of its tokenizer")
    hidden_size: int = Field(320, ge=32, description="width")
    layers: int = Field(8, ge=1, description="blocks")
    heads: int = Field(5, ge=1, description="attention heads; width over heads is 32, 64 or 128 for vLLM on a CPU")
    intermediate_size: int = Field(864, ge=32, description="width inside a block")


def make_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """Train a byte-level BPE tokenizer with the project's chat template on sentences and replies."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL_TOKENS[0], pad_token=SPECIAL_TOKENS[1])
    fast.chat_template = CHAT_TEMPLATE
    fast.model_max_length = POSITIONS
    return fast


def make_student(settings: StudentSettings, tokenizer: Any, *, prompt: str, seed: int) -> Any:
    """Return a Llama-style model of random weights.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` above `MOST_PARAMETERS`, or if heads do not divide the width.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    if settings.hidden_size % (2 * settings.heads):
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"hidden_size {settings.hidden_size} over heads {settings.heads} is no even number.",
            fix="Choose heads so that hidden_size over heads is 32, 64 or 128.",
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=settings.hidden_size,
                intermediate_size=settings.intermediate_size,
                num_hidden_layers=settings.layers,
                num_attention_heads=settings.heads,
                num_key_value_heads=settings.heads,
                max_position_embeddings=POSITIONS,
                tie_word_embeddings=True,
                bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                **{PROMPT_KEY: prompt},
            )
        )
    count = count_parameters(model)
    if count > MOST_PARAMETERS:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"The student would have {count:,d} parameters, above {MOST_PARAMETERS:,d}.",
            fix="Give fewer layers, a smaller hidden_size or a smaller vocabulary.",
        )
    return model


def count_parameters(model: Any) -> int:
    """Return the number of weights; tied ones count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def open_tokenizer(base: str) -> Any:
    """Return the tokenizer of a base; see `medfilip.distillation.base.base_folder` for what is raised."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base_folder(base), trust_remote_code=False)


def open_base(base: str, *, rank: int, prompt: str, seed: int) -> Any:
    """Return a given Hugging Face model, with a LoRA adapter to train if ``rank`` is above 0.

    Raises
    ------
    MedfilipError
        ``DEPENDENCY_MISSING`` for an adapter without peft.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base_folder(base), dtype=torch.float32, trust_remote_code=False)
    setattr(model.config, PROMPT_KEY, prompt)
    if not rank:
        return model
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MedfilipError(
            ErrorCode.DEPENDENCY_MISSING,
            "An adapter (lora_rank above 0) needs peft, which is not installed.",
            fix="Install peft, or train all weights with lora_rank=0.",
        ) from error
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
        return get_peft_model(model, config)


def save_student(model: Any, tokenizer: Any, folder: Path, *, dtype: str) -> None:
    """Write a Hugging Face folder with weights in ``dtype``; an adapter is merged into its model."""
    import copy

    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    plain = copy.deepcopy(model).cpu()
    if hasattr(plain, "merge_and_unload"):
        plain = plain.merge_and_unload()
    plain = plain.to(getattr(torch, dtype))
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    plain.save_pretrained(folder)
