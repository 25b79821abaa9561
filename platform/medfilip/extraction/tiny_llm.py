"""A causal language model with random weights, made on the spot: it proves the vLLM path without any download.

Its folder says that it is untrained, and whatever it replies is marked so and never becomes a finding.
"""

from __future__ import annotations

import json
from pathlib import Path

from medfilip.extraction.prompt import load_prompt
from medfilip.findings.ontology import load_ontology

UNTRAINED_KEY = "medfilip_untrained"
_VOCABULARY = 2048
_HEAD_SIZE = 32
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SPECIAL_TOKENS = ["<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"]
"""Tokens of `CHAT_TEMPLATE`; the first ends a reply."""


def make_tiny_llm(folder: Path, seed: int = 0, *, hidden_size: int = 128, layers: int = 2) -> Path:
    """Write a Llama-style model of random parameters with its own tokenizer, if it is not there yet.

    By default it has about a million parameters; a wider and deeper one takes the time of a real model.
    """
    if (folder / "model.safetensors").exists():
        return folder
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    ontology = load_ontology()
    corpus = [load_prompt().system, *(term for category in ontology.categories.values() for term in category.terms)]
    tokenizer.train_from_iterator(corpus, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL_TOKENS[0], pad_token=SPECIAL_TOKENS[1])
    fast.chat_template = CHAT_TEMPLATE
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(fast),
                hidden_size=hidden_size,
                intermediate_size=2 * hidden_size,
                num_hidden_layers=layers,
                num_attention_heads=hidden_size // _HEAD_SIZE,
                num_key_value_heads=hidden_size // _HEAD_SIZE,
                max_position_embeddings=4096,
                bos_token_id=None,
                eos_token_id=fast.eos_token_id,
                pad_token_id=fast.pad_token_id,
                **{UNTRAINED_KEY: True},
            )
        )
    folder.mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def is_untrained(model: str) -> bool:
    """Whether a model folder says that its weights are random."""
    config = Path(model) / "config.json"
    return config.is_file() and bool(json.loads(config.read_text(encoding="utf-8")).get(UNTRAINED_KEY, False))
