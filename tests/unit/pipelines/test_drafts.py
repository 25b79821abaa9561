"""Requests of a run: counted over parts, most frequent first, and never more than the settings allow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.extraction.tiny_llm import make_tiny_llm
from medfilip.findings.ontology import load_ontology
from medfilip.storage.location import Location
from medfilip.storage.schemas import RESOLVED_FINDINGS
from pipelines.drafts import category_of_draft, choose_requests, count_requests, knowledge_extractor, told_phrases
from pipelines.llm_settings import DraftSettings, OpenaiSettings, VllmSettings
from pipelines.llm_task import EXTRACTION, KNOWLEDGE
from pipelines.vllm_plan import engine_arguments, vllm_fingerprint

ONTOLOGY = load_ontology()


def count(*rows: dict[str, object]) -> dict[str, dict[str, int]]:
    finding = {"finding_id": 1, "study_id": "s", "report_id": "r", "certainty": "present"}
    return count_requests(RESOLVED_FINDINGS.from_rows([finding | row for row in rows]))


def test_equal_findings_are_one_request_whatever_report_they_stand_in() -> None:
    counted = count(
        {"category": "nodule", "severity": "mild", "sites": ["upper_lobe"]},
        {"category": "nodule", "size": "small", "sites": ["upper_lobe"], "report_id": "q", "certainty": "uncertain"},
        {"category": "nodule", "severity": "mild", "sites": ["upper_lobe"], "certainty": "absent"},
        {"category": "other:crazy paving"},
        {"category": "thrombosis"},
    )
    (request,) = [request for request in counted["described"] if "nodule" in request]
    assert counted["described"][request] == 2
    assert counted["unknown"] == {"other:crazy paving": 1}, "thrombosis has a reason for having no entry"


def test_the_most_frequent_requests_come_first_up_to_the_limits() -> None:
    parts = [
        {"unknown": {"other:a thing": 2, "other:b thing": 1, "other:7": 9}, "described": {"x": 1, "y": 2}},
        {"unknown": {"other:A thing 3": 1, "other:b thing": 1, "other:c thing": 1}, "described": {"x": 2, "z": 1}},
    ]
    chosen = choose_requests(parts, DraftSettings(drafts=5, texts=2), ONTOLOGY)
    assert chosen == {"draft": {'{"draft":"a thing"}': 3, '{"draft":"b thing"}': 2}, "describe": {"x": 3, "y": 2}}
    assert choose_requests(parts, DraftSettings(drafts=1, min_count=1), ONTOLOGY)["draft"] == {'{"draft":"a thing"}': 3}
    assert choose_requests([], DraftSettings(), ONTOLOGY) == {"draft": {}, "describe": {}}


def test_a_draft_belongs_to_the_category_it_was_asked_for() -> None:
    assert category_of_draft('{"draft":"crazy paving"}', ONTOLOGY) == "other:crazy paving"
    assert category_of_draft('{"draft":"pleural effusion"}', ONTOLOGY) == "pleural_effusion"


def test_phrases_are_found_by_what_a_finding_says(tmp_path: Path) -> None:
    (tmp_path / "told.json").write_text(json.dumps({'{"describe":{"category":"mass"}}': ["big lump"]}))
    staging = Location.parse(tmp_path)
    assert told_phrases(staging, {"category": "mass", "certainty": "present", "sites": []}) == ("big lump",)
    assert told_phrases(staging, {"category": "mass", "certainty": "absent"}) == ()
    assert told_phrases(staging, {"category": "mass", "certainty": "present", "severity": "mild"}) == ()


def test_an_endpoint_needs_permission_and_the_task_is_in_its_fingerprint() -> None:
    openai = OpenaiSettings(base_url="http://127.0.0.1:1/v1", model="m")
    settings = DraftSettings(engine="openai")
    with pytest.raises(MedfilipError) as caught:
        knowledge_extractor(settings, VllmSettings(), openai, allow_remote=False)
    assert caught.value.code is ErrorCode.REMOTE_NOT_ALLOWED and "sentences" not in caught.value.message
    assert knowledge_extractor(settings, VllmSettings(), openai, allow_remote=True).name == "openai"


def test_one_model_has_a_fingerprint_for_each_task(tmp_path: Path) -> None:
    settings = VllmSettings(model=str(make_tiny_llm(tmp_path / "llm")))
    assert vllm_fingerprint(settings, KNOWLEDGE) != vllm_fingerprint(settings) == vllm_fingerprint(settings, EXTRACTION)


def test_replies_are_decoded_under_a_schema_given_as_text() -> None:
    for request, field in (('{"draft":"x"}', "descriptions"), ('{"describe":{"category":"mass"}}', "phrases")):
        ((kind, schema),) = KNOWLEDGE.decoding(request).items()
        assert kind == "json" and isinstance(schema, str) and field in json.loads(schema)["properties"]
    assert list(EXTRACTION.decoding("a sentence")) == ["grammar"]
    assert engine_arguments(VllmSettings(), on_gpu=False)["structured_outputs_config"]["disable_any_whitespace"]
