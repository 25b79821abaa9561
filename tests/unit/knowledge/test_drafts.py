"""Knowledge from a model: what is asked, and that nothing unfit of an answer is used."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfilip.core.errors import ErrorCode
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.drafting import (
    MAX_NAME_CHARACTERS,
    MAX_REQUEST_CHARACTERS,
    DraftReply,
    describe_request,
    draft_request,
    load_instructions,
    plain_name,
    reply_schema,
)
from medfilip.knowledge.drafts import OK, DraftReader, drafted_entry, replies_table, write_drafts
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.knowledge.lint import lint
from medfilip.knowledge.reading import inspect_documents
from medfilip.storage.schemas import KNOWLEDGE_REPLIES

ONTOLOGY, INSTRUCTIONS = load_ontology(), load_instructions()
READER = DraftReader(INSTRUCTIONS, load_knowledge(), ONTOLOGY)
DRAFT = {
    "density": ["ground-glass haze"],
    "shape": ["reticular lines", "paving stone pattern"],
    "margin": ["sharp margin"],
    "distribution": ["both lungs"],
    "site": [],
    "secondary_signs": ["septal lines"],
    "descriptions": [
        "haze of both lungs crossed by a fine net of lines",
        "paving stones of grey lung between thin white lines",
        "patchwork of hazy areas with lines running through them",
    ],
}
EFFUSION = describe_request(
    {"category": "pleural_effusion", "certainty": "present", "severity": "moderate", "laterality": "left"}, ONTOLOGY
)
assert EFFUSION is not None


def draft(**changes):
    return READER.read(json.dumps(DRAFT | changes), draft_request("other:crazy paving", ONTOLOGY) or "")


def describe(*phrases):
    return READER.read(
        json.dumps({"phrases": ["white lower hemithorax", "meniscus to the mid lung", *phrases]}), EFFUSION
    )


def test_a_good_draft_becomes_an_unreviewed_entry_that_lint_passes():
    result = draft()
    assert (result.status, result.dropped, result.raw_reply) == (OK, (), None)
    entry = drafted_entry("other:crazy paving", result.reply)
    assert entry.review == "unreviewed" and "site" not in entry.attributes
    text = write_drafts([entry], "a-model", INSTRUCTIONS)
    knowledge, flaws = inspect_documents({"drafts.yaml": text}, ONTOLOGY)
    assert knowledge.entries == {"other:crazy paving": entry} and "a-model" in knowledge.sources["model"]
    assert [problem for problem in lint(knowledge, ONTOLOGY, flaws) if problem.severity == "error"] == []


@pytest.mark.parametrize(
    ("phrase", "reason"),
    [
        ("no air inside", "negation"),
        ("rim of 3 mm", "measurement"),
        ("two centimetres thick", "measurement"),
        ("next to a pneumothorax", "other_category"),
        ("heart pushed to the right", "other_side"),
        ("bilateral white bases", "other_side"),
        ("severe white hemithorax", "other_severity"),
        ("possibly white base", "banned_word"),
        ("improved since the last film", "banned_word"),
        ("white base, dark apex", "characters"),
        ("white base {x}", "characters"),
        ("a b c d e f g h i j k l m", "too_long"),
        ("White  lower hemithorax", "duplicate"),
    ],
)
def test_unfit_phrases_are_dropped_with_a_reason(phrase, reason):
    result = describe(phrase)
    assert result.status == OK and result.dropped == (reason,)
    assert json.loads(result.reply)["phrases"] == ["white lower hemithorax", "meniscus to the mid lung"]


def test_the_findings_own_side_and_severity_may_be_named():
    assert describe("left costophrenic angle filled", "moderate layer of fluid").dropped == ()
    assert draft(shape=["left lower patch"]).dropped == ("other_side",)
    assert draft(shape=["severe haze"]).dropped == ("other_severity",)


def test_signs_of_the_vocabulary_and_the_own_name_may_be_used():
    assert draft(secondary_signs=["volume loss"], shape=["crazy paving lines"]).dropped == ()
    assert describe("pleural effusion up to the mid lung").dropped == ()


def test_a_reply_that_says_too_little_is_refused_whole():
    refused = READER.read(json.dumps({"phrases": ["no air", "white base"]}), EFFUSION)
    assert (refused.status, refused.reply, refused.dropped) == (ErrorCode.DRAFT_UNFIT, None, ("negation",))
    assert refused.raw_reply is not None
    unfit = draft(descriptions=["no haze of both lungs at all", *DRAFT["descriptions"][:2]])
    assert unfit.status == ErrorCode.DRAFT_UNFIT and unfit.reply is None


@pytest.mark.parametrize(
    ("raw", "truncated", "code"),
    [
        ("", False, ErrorCode.REPLY_EMPTY),
        ('{"phrases": ["white', True, ErrorCode.REPLY_TRUNCATED),
        ('{"phrases": ["white"]}', False, ErrorCode.REPLY_INVALID),
        ('{"phrases": ["white base", "sharp margin"], "more": 1}', False, ErrorCode.REPLY_INVALID),
        ("I am sorry, I cannot help with that.", False, ErrorCode.REPLY_REFUSED),
    ],
)
def test_replies_that_cannot_be_read_have_a_code(raw, truncated, code):
    result = READER.read(raw, EFFUSION, truncated=truncated, output_tokens=7)
    assert (result.status, result.reply, result.output_tokens) == (code, None, 7)


def test_only_names_and_slots_are_asked_about():
    row = {
        "category": "pleural_effusion", "certainty": "uncertain", "size": "large", "laterality": "left",
        "sites": ["lung_base", "a name from a report"], "patterns": None, "position": "text of a report",
    }  # fmt: skip
    assert describe_request(row, ONTOLOGY) == (
        '{"describe":{"category":"pleural effusion","severity":"severe","side":"left","sites":["lung base"]}}'
    )
    assert describe_request(row | {"certainty": "absent"}, ONTOLOGY) is None
    assert describe_request(row | {"category": "other:thing"}, ONTOLOGY) is None


@pytest.mark.parametrize(
    ("category", "name"),
    [
        ("other:Crazy  paving", "crazy paving"),
        ("other:seen 12/03/2024", "seen"),
        ("other:<request>ignore</request>", "request ignore request"),
        ("other:7", None),
        ("other:one two three four five six seven", None),
        ("other:" + "x" * 61, None),
    ],
)
def test_names_from_reports_are_cut_to_plain_words(category, name):
    assert plain_name(category) == name


@given(text=st.text(max_size=120))
def test_no_name_carries_digits_markup_or_length(text):
    name = plain_name(f"other:{text}")
    if name is not None:
        assert len(name) <= MAX_NAME_CHARACTERS and all(letter.isascii() for letter in name)
        assert not any(letter.isdigit() or letter in '<>"{}' for letter in name)
        request = draft_request(f"other:{text}", ONTOLOGY)
        assert request is not None and len(request) <= MAX_REQUEST_CHARACTERS


@given(
    raw=st.text(max_size=200)
    | st.builds(lambda phrases: json.dumps({"phrases": phrases}), st.lists(st.text(max_size=80)))
)
def test_any_reply_becomes_a_result(raw):
    result = READER.read(raw, EFFUSION)
    assert (result.reply is None) == (result.status != OK)


def test_the_examples_of_the_instructions_would_be_used():
    for example in INSTRUCTIONS.examples:
        request = json.dumps(example["request"], separators=(",", ":"))
        result = READER.read(json.dumps(example["reply"]), request)
        assert (result.status, result.dropped) == (OK, ())


def test_schemas_are_text_and_follow_the_models():
    schema = json.loads(reply_schema("draft"))
    assert set(schema["properties"]) == set(DraftReply.model_fields) and schema["additionalProperties"] is False
    assert INSTRUCTIONS.reply_form(EFFUSION) == reply_schema("describe")


def test_results_are_rows_in_the_order_of_their_ids():
    results = [draft(), READER.failed(ErrorCode.ENGINE_UNTRAINED, "{}"), describe("no air")]
    table = replies_table(pa.chunked_array([[1, 2, 3]]), "vllm", results)
    assert table.schema == KNOWLEDGE_REPLIES.arrow_schema()
    rows = table.to_pylist()
    assert [row["status"] for row in rows] == [OK, "engine_untrained", OK]
    assert rows[1]["reply"] is None and rows[2]["dropped"] == ["negation"]
