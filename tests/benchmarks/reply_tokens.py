"""Output tokens for a finding: the compact reply format beside a keyed and a verbose one, in one run.

Usage: ``python tests/benchmarks/reply_tokens.py [OUT.json]``. Input tokens (shared prefix, and what a sentence adds)
are counted apart from output tokens; every reply counts whole, with its frame, over the findings in it.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[2] / "platform")]

from medfilip.extraction.prompt import load_prompt
from medfilip.extraction.reply_format import Reply, write_reply
from tests.support.replies import rule_replies, written_replies
from tests.support.token_counts import Count, keyed, mistral_counter, own_counter, verbose

FORMS: dict[str, Callable[[Reply], str]] = {"compact": write_reply, "keyed": keyed, "verbose": verbose}


def measure(replies: list[tuple[str, Reply]], count: Count) -> dict[str, Any]:
    """Return tokens per finding and per reply for every form, and input tokens."""
    result: dict[str, Any] = {"replies": len(replies), "findings": sum(len(reply.f) for _, reply in replies)}
    for name, write in FORMS.items():
        found = [(count(write(reply)), len(reply.f)) for _, reply in replies]
        per_reply = [tokens / findings for tokens, findings in found if findings]
        result[name] = {
            "output_tokens_per_finding": round(
                sum(tokens for tokens, findings in found if findings) / sum(findings for _, findings in found), 2
            ),
            "p95_of_replies": round(statistics.quantiles(per_reply, n=20)[-1], 2),
            "max_of_replies": round(max(per_reply), 2),
            "tokens_of_an_empty_reply": count(write(Reply(f=()))),
        }
    template = load_prompt()
    result["input_tokens_of_the_shared_prefix"] = count(template.system)
    frames = [count(template.messages(sentence, None)[1]["content"]) for sentence, _ in replies]
    result["input_tokens_of_a_sentence"] = round(statistics.mean(frames), 2)
    return result


def main() -> None:
    """Measure and write JSON."""
    sets = {"written": written_replies(), "rules over synthetic reports": list(rule_replies(200))}
    with tempfile.TemporaryDirectory() as folder:
        counters = {"mistral_common tekken": mistral_counter(), "own": own_counter(Path(folder))}
        measured = {
            f"{replies} · {tokenizer}": measure(sets[replies], count)
            for replies in sets
            for tokenizer, count in counters.items()
        }
    environment = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: importlib.metadata.version(name) for name in ("mistral_common", "tokenizers", "pydantic")},
    }
    text = json.dumps({"benchmark": "reply_tokens", "environment": environment, "measured": measured}, indent=2)
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
