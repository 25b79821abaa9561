"""Replies of a language model: validated, grounded, normalised; what cannot be used is kept with a reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medfilip.core.errors import ErrorCode
from medfilip.extraction.engine import OK, FindingRow, SentenceResult
from medfilip.extraction.reply import MAX_REPLY_CHARACTERS, ReplyReader
from medfilip.extraction.reply_format import Reply, reply_grammar, reply_schema, write_reply
from medfilip.extraction.tiny_llm import is_untrained, make_tiny_llm
from medfilip.findings.finding import Finding
from medfilip.findings.ontology import load_ontology
from tests.support.replies import rule_replies, written_replies
from tests.support.token_counts import mistral_counter, own_counter, verbose

READER = ReplyReader(load_ontology())
SENTENCE = "small left pleural effusion"


def read(reply: object, sentence: str = SENTENCE, *, truncated: bool = False) -> SentenceResult:
    raw = reply if isinstance(reply, str) else json.dumps({"f": reply})
    return READER.read(raw, sentence, input_tokens=9, output_tokens=5, truncated=truncated)


def item(*more: str, m: str = "pleural effusion", c: str = "yes") -> list[str]:
    return [m, c, *more]


def one(reply: object, sentence: str = SENTENCE) -> FindingRow:
    (row,) = read([reply], sentence).findings
    return row


def words(row: FindingRow, sentence: str) -> dict[str, str]:
    return {span["slot"]: sentence[span["start"] : span["end"]] for span in row["evidence"]}


def reasons(result: SentenceResult) -> list[str]:
    return [note["reason"] for note in result.ungrounded]


def test_a_good_reply_becomes_a_grounded_finding() -> None:
    result = read([item("small", "left", "pleural")])
    (row,) = result.findings
    assert (result.status, result.ungrounded, result.input_tokens, result.output_tokens) == (OK, (), 9, 5)
    assert (row["category"], row["size"], row["laterality"], row["sites"]) == (
        "pleural_effusion", "small", "left", ["pleura"],
    )  # fmt: skip
    assert row["alignment"] == "exact"
    assert words(row, SENTENCE) == {
        "mention": "pleural effusion", "size": "small", "laterality": "left", "site": "pleural",
    }  # fmt: skip
    assert Finding.from_row(row).to_row() == row


def test_every_slot_travels() -> None:
    sentence = "2 new mildly irregular nodules of 1.5 cm in the right upper lobe, possibly old"
    row = one(
        ["nodules", "maybe", "possible", "mildly", "1.5 cm", "2", "right", "upper lobe", "irregular", "new", "chronic"],
        sentence,
    )
    expected = {
        "category": "nodule", "certainty": "uncertain", "hedge": "possible", "severity": "mild", "size_mm": 15.0,
        "count": 2, "laterality": "right", "sites": ["upper_lobe"], "patterns": ["irregular"], "change": "new",
        "chronicity": "chronic",
    }  # fmt: skip
    assert {slot: row[slot] for slot in expected} == expected
    assert words(row, sentence)["size_mm"] == "1.5 cm" and words(row, sentence)["count"] == "2"
    sentence = "enteric tube is coiled in the stomach"
    assert one(["enteric tube", "yes", "@coiled in the stomach"], sentence)["position"] == "malpositioned"
    assert one(["enteric tube", "yes", "@in the stomach"], sentence)["position"] == "stomach"


def test_words_that_are_not_in_the_sentence_ground_nothing() -> None:
    result = read([item(m="pneumothorax"), item(), item(m="  "), item(m="effusio")])
    assert len(result.findings) == 1
    assert reasons(result) == ["mention_not_in_sentence", "empty_mention", "mention_not_in_sentence"]


@pytest.mark.parametrize(
    ("mention", "sentence"),
    [
        ("Pleural  Effusion.", "a pleural effusion"),
        ("pleural effusion", "both pleural effusions"),
        ("air-space opacity", "an air space opacity"),
        ("airspace opacities", "air-space opacity"),
    ],
)
def test_case_spacing_hyphen_and_plural_are_forgiven_and_said(mention: str, sentence: str) -> None:
    assert one(item(m=mention), sentence)["alignment"] == "normalised"


@pytest.mark.parametrize(
    ("qualifier", "slot", "empty", "reason"),
    [
        ("large", "size", None, "size_not_in_sentence"),
        ("severe", "severity", None, "severity_not_in_sentence"),
        ("right", "laterality", None, "laterality_not_in_sentence"),
        ("both", "laterality", None, "laterality_not_in_sentence"),
        ("lower lobe", "sites", [], "sites_not_in_sentence"),
        ("patchy", "patterns", [], "patterns_not_in_sentence"),
        ("8 mm", "size_mm", None, "size_mm_not_in_sentence"),
        ("three", "count", None, "count_not_in_sentence"),
        ("new", "change", None, "change_not_in_sentence"),
        ("acute", "chronicity", None, "chronicity_not_in_sentence"),
        ("probable", "hedge", None, "hedge_not_in_sentence"),
        ("@carina", "position", None, "position_not_in_sentence"),
        ("@small", "position", None, "position_unknown"),
        ("effusion", "severity", None, "qualifier_unknown"),
        ("purple", "severity", None, "qualifier_not_in_sentence"),
    ],
)
def test_a_slot_the_sentence_does_not_carry_is_taken_out_and_told(
    qualifier: str, slot: str, empty: object, reason: str
) -> None:
    result = read([item(qualifier)])
    assert (result.findings[0][slot], reasons(result)) == (empty, [reason])


def test_a_denial_that_no_word_carries_is_kept_as_inferred() -> None:
    result = read([item(c="no")])
    assert (result.findings[0]["alignment"], reasons(result)) == ("inferred", ["certainty_without_cue"])


def test_copied_words_stand_for_codes() -> None:
    row = one(item("bilateral", "stable"), "stable bilateral pleural effusion")
    assert (row["laterality"], row["change"]) == ("bilateral", "unchanged")
    result = read([item("small", "tiny")], "small or tiny pleural effusion")
    assert (result.findings[0]["size"], reasons(result)) == ("small", ["size_twice"])


def test_of_several_places_the_nearest_is_the_evidence() -> None:
    sentence = "small left effusion and small right pneumothorax"
    row = one(["pneumothorax", "yes", "small", "right"], sentence)
    assert next(s for s in row["evidence"] if s["slot"] == "size")["start"] == sentence.rindex("small")


def test_unknown_categories_are_kept_with_a_suggestion_and_near_ones_folded() -> None:
    rows = [one(item(f"={name}", m="shadow"), "a shadow") for name in ("pleural_effusions", "pleural efusion")]
    assert [row["category"] for row in rows] == ["pleural_effusion", "pleural_effusion"]
    row = one(item("=pulmonic nodulosis", m="shadow"), "a shadow")
    assert row["category"] == "other:pulmonic nodulosis" and row["suggestion"] in load_ontology().categories
    row = one(item(m="zzqx"), "zzqx")
    assert (row["category"], row["suggestion"]) == ("other:zzqx", None)


def test_the_sentences_own_words_decide_the_category() -> None:
    result = read([item("=pneumothorax")])
    assert result.findings[0]["category"] == "pleural_effusion"
    assert reasons(result) == ["category_not_supported"]
    assert one(item("=rib fracture", m="fractures"), "fractures")["category"] == "rib_fracture", "more special is fine"


def test_duplicates_are_one_and_repeated_words_are_each_their_own() -> None:
    result = read([item(), item("left"), item("left", "small")])
    assert [row["laterality"] for row in result.findings] == [None, "left"]
    sentence = "nodule on the left, nodule on the right"
    rows = read([["nodule", "yes", side] for side in ("left", "right")], sentence).findings
    assert [row["evidence"][0]["start"] for row in rows] == [0, sentence.rindex("nodule")]


def test_unusable_replies_keep_the_raw_text_and_a_reason() -> None:
    cut = read('{"f":[["ple', truncated=True)
    assert (cut.status, cut.findings, cut.raw_reply) == (ErrorCode.REPLY_TRUNCATED, [], '{"f":[["ple')
    whole = read('{"f":[["pleural effusion","yes"],["ple', truncated=True)
    assert whole.findings == [], "never used in part"
    assert read(" ").status is ErrorCode.REPLY_EMPTY
    assert read("I'm sorry, but I cannot help with that.").status is ErrorCode.REPLY_REFUSED
    for reply in ('{"f":[["a"]]}', "[]", '{"f":[],"x":1}', "no findings", '{"f":[["a","perhaps"]]}'):
        assert read(reply).status is ErrorCode.REPLY_INVALID
    endless = read('{"f":[]}' + " " * MAX_REPLY_CHARACTERS)
    assert endless.status is ErrorCode.REPLY_INVALID and len(endless.raw_reply or "") == MAX_REPLY_CHARACTERS


def test_fences_of_servers_without_a_schema_are_forgiven() -> None:
    assert read('```json\n{"f":[["effusion","yes"]]}\n```').findings[0]["category"] == "pleural_effusion"


def test_the_schema_travels_as_text_without_nulls_and_bounds_every_string() -> None:
    text = reply_schema()
    assert "null" not in text and "$ref" not in text
    findings = json.loads(text)["properties"]["f"]
    strings = [*findings["items"]["prefixItems"], findings["items"]["items"]]
    assert all("maxLength" in string or "enum" in string for string in strings)
    assert findings["maxItems"] and findings["items"]["maxItems"]


def test_a_reply_survives_writing() -> None:
    for _, reply in written_replies():
        assert Reply.model_validate_json(write_reply(reply)) == reply


def test_written_replies_stand_in_their_sentences() -> None:
    for sentence, reply in written_replies():
        result = READER.read(write_reply(reply), sentence)
        assert len(result.findings) == len(reply.f), sentence
        assert not [r for r in reasons(result) if r in ("mention_not_in_sentence", "laterality_not_in_sentence")]


@pytest.mark.parametrize("tokenizer", ["mistral", "own"])
def test_a_finding_costs_at_most_twenty_output_tokens(tokenizer: str, tmp_path: Path) -> None:
    if tokenizer == "mistral":
        pytest.importorskip("mistral_common")
    count = mistral_counter() if tokenizer == "mistral" else own_counter(tmp_path / "llm")
    for replies in (written_replies(), list(rule_replies(40))):
        stated = [reply for _, reply in replies if reply.f]
        findings = sum(len(reply.f) for reply in stated)
        compact = sum(count(write_reply(reply)) for reply in stated) / findings
        assert compact <= 20
        assert compact < 0.5 * sum(count(verbose(reply)) for reply in stated) / findings


def test_the_tiny_model_says_that_it_is_untrained(tmp_path: Path) -> None:
    folder = make_tiny_llm(tmp_path / "llm")
    assert is_untrained(str(folder))
    assert not is_untrained("organisation/model-of-a-hub")
    assert not list(folder.glob("*.bin")), "no pickled weights"


def test_the_grammar_takes_replies_without_blanks_and_nothing_else() -> None:
    xgrammar = pytest.importorskip("xgrammar")
    from xgrammar.testing import _is_grammar_accept_string as accepts

    grammar = xgrammar.Grammar.from_ebnf(reply_grammar())
    for _, reply in written_replies():
        assert accepts(grammar, write_reply(reply))
    for text in ('{"f": []}', '{"f":[["a"]]}', '{"f":[["a","perhaps"]]}', '{"f":[["a","yes",""]]}', '{"f":[]} '):
        assert not accepts(grammar, text)
    assert not accepts(grammar, json.dumps({"f": [["a" * 81, "yes"]]}, separators=(",", ":")))
