"""What goes with a student's weights: its card, its scores, and the fingerprint of it all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medfilip._version import __version__
from medfilip.core.fingerprint import fingerprint, sha256_file
from medfilip.distillation.settings import DistillSettings
from medfilip.distillation.student import count_parameters, save_student
from medfilip.model.checkpoint import HASHES

CARD, FACTS = "README.md", "medfilip.json"


def card_facts(facts: Mapping[str, str], *, refused: int) -> dict[str, Any]:
    """Return what the card says of the training set."""
    known = {name: facts[name] for name in ("synthetic", "fingerprint", "ontology") if name in facts}
    return {**known, "counts": json.loads(facts.get("counts", "{}")), "refused_as_too_long": refused}


def publish_student(
    model: Any,
    tokenizer: Any,
    folder: Path,
    *,
    settings: DistillSettings,
    facts: Mapping[str, Any],
    metrics: Mapping[str, float],
) -> str:
    """Write a student's folder with its card, and return its fingerprint."""
    save_student(model, tokenizer, folder, dtype=settings.dtype)
    content: dict[str, Any] = {
        "medfilip": __version__,
        "prompt": settings.prompt,
        "parameters": count_parameters(model),
        "settings": settings.semantic(),
        "data": dict(facts),
        "metrics": dict(metrics),
    }
    return write_card(folder, content)


def write_card(folder: Path, content: Mapping[str, Any]) -> str:
    """Write facts and card beside the weights, and last the hashes of all files; return the student's fingerprint."""
    (folder / HASHES).unlink(missing_ok=True)
    weights = {file.name: sha256_file(file) for file in sorted(folder.glob("*.safetensors"))}
    tokenizer = sha256_file(folder / "tokenizer.json")
    name = fingerprint({"weights": weights, "tokenizer": tokenizer, "prompt": content["prompt"]})
    told = {**content, "fingerprint": name}
    (folder / FACTS).write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / CARD).write_text(_card(name, content), encoding="utf-8")
    hashes = {file.name: sha256_file(file) for file in sorted(folder.iterdir()) if file.is_file()}
    (folder / HASHES).write_text(json.dumps(hashes, indent=2) + "\n", encoding="utf-8")
    return name


def add_metrics(folder: Path, metrics: Mapping[str, float]) -> str:
    """Add numbers to a published student's card and return its fingerprint, which they do not change."""
    content = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    content["metrics"] = {**content["metrics"], **metrics}
    return write_card(folder, {key: value for key, value in content.items() if key != "fingerprint"})


def _card(name: str, content: Mapping[str, Any]) -> str:
    data, settings = content["data"], content["settings"]
    if data.get("synthetic") == "true":
        source, licence = "**synthetic sentences alone**: no report of a patient was read", "apache-2.0"
    else:
        source, licence = "readings of a teacher; the licence of the reports holds for the weights", "other"
    kind = f"adapter of rank {settings['lora_rank']} on" if settings["lora_rank"] else "trained from"
    base = f"{kind} {Path(settings['base']).name}" if settings["base"] else "Llama-style, made from scratch"
    kept = data.get("counts", {}).get("kept", 0)
    numbers = "\n".join(f"| {key} | {value:.4g} |" for key, value in content["metrics"].items())
    return f"""---
license: {licence}
language: en
pipeline_tag: text-generation
---

# Findings from sentences of chest X-ray reports: student {name}

Research use only. Not a medical device.

| | |
|---|---|
| model | {base}; {content["parameters"]:,d} parameters |
| training data | {source} |
| training set | {data.get("fingerprint", "unknown")}, {kept:,d} sentences kept |
| prompt | {content["prompt"]} |
| ontology | {data.get("ontology", "unknown")} |
| medfilip | {content["medfilip"]} |

Give it one sentence in lower case without its full stop, in the frame of its prompt version; it writes the findings in
the compact form of medfilip. Use it through `medfilip extract engine=auto vllm.model=FOLDER`, which checks every reply
against the sentence. It knows nothing beyond such sentences.

| metric | value |
|---|---|
{numbers}
"""
