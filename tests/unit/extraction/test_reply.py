"""Replies of a language model: validated, grounded, normalised; what cannot be used is kept with a reason."""

from __future__ import annotations

import json

from medfilip.core.errors import ErrorCode
from medfilip.extraction.engine import OK, SentenceResult
from medfilip.extraction.prompt import messages
from medfilip.extraction.reply import ReplyReader, reply_schema
from medfilip.extraction.tiny_llm import is_untrained, make_tiny_llm
from medfilip.findings.ontology import load_ontology

READER = ReplyReader(load_ontology())
SENTENCE = "small left pleural effusion"


def read(reply: object, *, truncated: bool = False) -> SentenceResult:
    raw = reply if isinstance(reply, str) else json.dumps({"findings": reply})
    return READER.read(raw, SENTENCE, input_tokens=9, output_tokens=5, truncated=truncated)


def item(**changes: object) -> dict[str, object]:
    return {"mention": "pleural effusion", "category": "pleural effusion", "certainty": "present", **changes}


def test_a_good_reply_becomes_a_grounded_finding() -> None:
    result = read([item(severity="small", laterality="left", sites=["pleura", "moon"])])
    (row,) = result.findings
    assert (result.status, result.ungrounded, result.output_tokens) == (OK, (), 5)
    assert (row["category"], row["size"], row["laterality"], row["sites"]) == (
        "pleural_effusion",
        "small",
        "left",
        ["pleura"],
    )
    assert row["alignment"] == "exact"
    (span,) = row["evidence"]
    assert SENTENCE[span["start"] : span["end"]] == "pleural effusion"


def test_words_that_are_not_in_the_sentence_ground_nothing() -> None:
    result = read([item(mention="pneumothorax"), item(), item(mention="  ")])
    assert (len(result.findings), len(result.ungrounded)) == (1, 2)


def test_case_and_spacing_are_forgiven_and_said() -> None:
    assert read([item(mention="Pleural  Effusion.")]).findings[0]["alignment"] == "normalised"


def test_unknown_categories_are_kept_and_near_ones_folded() -> None:
    categories = [
        read([item(category=name)]).findings[0]["category"]
        for name in ("pleural_effusions", "pleural efusion", "Gossypiboma")
    ]
    assert categories == ["pleural_effusion", "pleural_effusion", "other:gossypiboma"]


def test_unusable_replies_keep_the_raw_text_and_a_reason() -> None:
    cut = read('{"findings":[{"mention":"ple', truncated=True)
    assert (cut.status, cut.findings, cut.raw_reply) == (ErrorCode.REPLY_TRUNCATED, [], '{"findings":[{"mention":"ple')
    for reply in ("I cannot help with that.", '{"findings":[{"mention":"a"}]}', "[]", '{"findings":[],"x":1}'):
        assert read(reply).status is ErrorCode.REPLY_INVALID


def test_the_schema_travels_as_text_and_bounds_every_string() -> None:
    schema = json.loads(reply_schema())
    assert schema["properties"]["findings"]["maxItems"] > 0
    assert schema["$defs"]["ReplyFinding"]["properties"]["mention"]["maxLength"] > 0


def test_the_fixed_part_of_the_prompt_comes_first() -> None:
    first, second = messages("a", None), messages("b", "c")
    assert first[0] == second[0]
    assert second[1]["content"] == "Previous sentence: c\nSentence: b"


def test_the_tiny_model_says_that_it_is_untrained(tmp_path) -> None:
    folder = make_tiny_llm(tmp_path / "llm")
    assert is_untrained(str(folder))
    assert not is_untrained("organisation/model-of-a-hub")
    assert not list(folder.glob("*.bin")), "no pickled weights"
