"""Rules and a model together, a chat endpoint as the engine, and trying failures again: on Ray, over real HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.extraction.gold import read_gold
from medfilip.extraction.lexicon import LexiconEngine
from medfilip.extraction.names import Names
from medfilip.extraction.reply_format import write_reply
from medfilip.extraction.reply_writer import reply_of
from medfilip.findings.ontology import load_ontology
from medfilip.storage.location import Location
from medfilip.storage.shards import read_dataset
from pipelines.review import review
from tests.ray.conftest import Ran, run_job
from tests.support.chat_server import Answer, ChatServer, chat_server

RULES, NAMES = LexiconEngine(), Names(load_ontology())


class Model:
    """A model that reads as the rules do, save where a test tells it otherwise."""

    def __init__(self) -> None:
        self.broken = False
        self.contrary = False

    def answer(self, sentence: str, _: dict[str, Any]) -> Answer:
        if self.broken and "effusion" in sentence:
            return Answer(status=500)
        if self.broken and "pneumothorax" in sentence:
            return Answer('{"f":[["pneumo', finish_reason="length")
        findings = RULES.extract(sentence).findings
        reply = write_reply(reply_of(sentence, findings, NAMES))
        if self.contrary and findings:
            reply = '{"f":[]}'
        return Answer(reply, cached=600)


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def server(model: Model) -> Iterator[ChatServer]:
    with chat_server(model.answer) as running:
        yield running


def settings(ingested: Ran, root: Path, server: ChatServer, *more: str) -> tuple[str, ...]:
    return (
        f"reports={ingested.location}", f"root={root}", "buckets=3", f"openai.base_url={server.url}", "openai.model=m",
        "openai.max_tries=1", "allow_remote=true", *more,
    )  # fmt: skip


def test_rules_read_all_and_the_model_a_sample(
    ingested: Ran, extracted: Ran, tmp_path: Path, server: ChatServer, model: Model
) -> None:
    auto = ("engine=auto", "auto.model=openai", "auto.audit_share=0.4")
    outcome = run_job("extract", *settings(ingested, tmp_path, server, *auto))
    manifest = outcome.manifest
    counts = manifest.counts
    distinct = counts["distinct_sentences"]
    asked = server.sentences()
    assert counts["sentences_extracted"] == distinct
    assert len(asked) == len(set(asked)) == counts["model_sentences_extracted"] > 0
    assert counts["sentences_audited"] + counts["sentences_doubtful"] >= len(asked)
    assert 0.2 * distinct < counts["sentences_audited"] < 0.6 * distinct
    assert counts["input_tokens"] == 700 * len(asked) and counts["cached_tokens"] == 600 * len(asked)
    assert manifest.metrics["audit_agreement"] > 0.9
    assert manifest.metrics["share_doubtful"] == counts["sentences_doubtful"] / distinct
    expected = read_dataset(extracted.location, extracted.manifest, "mentions")
    found = read_dataset(Ran.of(outcome).location, manifest, "mentions")
    settled = found.filter(pc.equal(found["engine"], "lexicon"))
    assert settled == expected.filter(pc.is_in(expected["sentence_id"], value_set=settled["sentence_id"].unique()))
    assert (settled.num_rows == found.num_rows) == (counts["model_answers_used"] == 0)

    model.contrary = True
    again = run_job("extract", *settings(ingested, tmp_path, server, *auto), new_run=True)
    assert len(server.asked) == len(asked), "what the model has read it is not asked again"
    assert again.manifest.counts["model_sentences_from_cache"] == len(asked)


def test_disagreement_is_queued_and_settled_findings_stay(
    ingested: Ran, extracted: Ran, tmp_path: Path, server: ChatServer, model: Model
) -> None:
    model.contrary = True
    auto = ("engine=auto", "auto.model=openai", "auto.audit_share=1")
    outcome = run_job("extract", *settings(ingested, tmp_path, server, *auto))
    queue = read_dataset(Ran.of(outcome).location, outcome.manifest, "review_queue").to_pylist()
    audited = [row for row in queue if row["reason"] == "audit"]
    assert audited and all(row["kinds"] == ["category"] and row["model"] == [] for row in audited)
    assert outcome.manifest.metrics["audit_agreement"] < 1
    if not outcome.manifest.counts["sentences_doubtful"]:
        mentions = read_dataset(Ran.of(outcome).location, outcome.manifest, "mentions")
        assert mentions == read_dataset(extracted.location, extracted.manifest, "mentions")


def test_failures_cost_their_rows_and_are_tried_again_when_asked(
    ingested: Ran, extracted: Ran, tmp_path: Path, server: ChatServer, model: Model
) -> None:
    model.broken = True
    openai = settings(ingested, tmp_path, server, "engine=openai", "openai.max_output_tokens=100")
    first = run_job("extract", *openai)
    failed = first.manifest.rejected
    assert set(failed) == {ErrorCode.ENGINE_FAILED, ErrorCode.REPLY_TRUNCATED}
    assert any("--retry-rejected" in step for step in first.next_steps)
    assert len(server.asked) == first.manifest.counts["distinct_sentences"]

    model.broken = False
    same = run_job("extract", *openai)
    assert same.already_finished, "a finished run stays as it is"
    before = len(server.asked)
    second = run_job("extract", *openai, "retry_rejected=true")
    again = server.asked[before:]
    assert second.location != first.location
    assert len(again) == sum(failed.values()) and all(body["max_tokens"] == 200 for body in again)
    assert second.manifest.rejected == {}
    mentions = read_dataset(Ran.of(second).location, second.manifest, "mentions")
    rules = read_dataset(extracted.location, extracted.manifest, "mentions")
    assert set(mentions["engine"].to_pylist()) == {"openai"}

    def said(table: Any) -> set[tuple[str, str, str]]:
        rows = zip(*(table[name].to_pylist() for name in ("report_id", "category", "certainty")), strict=True)
        return set(rows)

    assert len(said(mentions) & said(rules)) > 0.9 * len(said(rules))
    third = run_job("extract", *openai, "retry_rejected=true")
    assert third.manifest.rejected == {} and len(server.asked) == before + len(again)


def test_an_estimate_is_printed_and_nothing_is_published(
    ingested: Ran, tmp_path: Path, server: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    openai = settings(ingested, tmp_path, server, "engine=openai")
    assert run_job("extract", *openai, "estimate=true") is None
    shown = capsys.readouterr().out
    assert "24 reports hold" in shown and "tokens out" in shown and "~" in shown
    assert 0 < len(server.asked) <= 48, "a short probe"
    assert not list(tmp_path.rglob("extract-*/*/manifest.json"))
    asked = len(server.asked)
    done = run_job("extract", *openai)
    assert len(server.asked) == asked + done.manifest.counts["sentences_extracted"]


def test_an_endpoint_that_refuses_the_key_stops_the_job_with_its_code(ingested: Ran, tmp_path: Path) -> None:
    asked = threading.Event()

    def answer(_: str, __: dict[str, Any]) -> Answer:
        asked.set()
        return Answer(status=401)

    with chat_server(answer) as server, pytest.raises(MedfilipError) as caught:
        run_job("extract", *settings(ingested, tmp_path, server, "engine=openai"))
    assert caught.value.code is ErrorCode.UNAUTHENTICATED and asked.is_set()
    assert "ray::" not in str(caught.value)


DOUBTFUL = "opacity at the left base, atelectasis versus pneumonia"
UNANSWERED = "nodule versus granuloma in the right apex"


@pytest.fixture
def doubted(ray_cluster: None, tmp_path: Path) -> Ran:
    """Ingest three reports, two of them with a sentence that the rules cannot settle."""
    texts = [
        f"FINDINGS: {DOUBTFUL}. No effusion.",
        f"FINDINGS: {UNANSWERED}.",
        "FINDINGS: No effusion. Small pneumothorax.",
    ]
    rows = [{"report_id": f"r{n}", "study_id": f"s{n}", "patient_id": f"p{n}", "text": t} for n, t in enumerate(texts)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "reports.parquet")
    settings = (f"reports={tmp_path}/reports.parquet", f"root={tmp_path}/ingest", "keep_report_ids=true")
    return Ran.of(run_job("ingest", *settings))


def test_what_rules_doubt_the_model_decides_if_it_can(doubted: Ran, tmp_path: Path) -> None:
    assert RULES.extract(DOUBTFUL).doubts and RULES.extract(UNANSWERED).doubts

    def answer(sentence: str, _: dict[str, Any]) -> Answer:
        if sentence == UNANSWERED:
            return Answer(status=500)
        return Answer('{"f":[["pneumonia","maybe","versus","left","base"]]}')

    with chat_server(answer) as server:
        auto = ("engine=auto", "auto.model=openai", "auto.audit_share=0")
        outcome = run_job("extract", *settings(doubted, tmp_path, server, *auto))
        assert sorted(server.sentences()) == sorted([DOUBTFUL, UNANSWERED])
    manifest, run = outcome.manifest, Ran.of(outcome).location
    mentions = read_dataset(run, manifest, "mentions").to_pylist()
    engines = {
        report: {m["engine"] for m in mentions if m["report_id"].endswith(report)} for report in ("r0", "r1", "r2")
    }
    assert engines == {"r0": {"openai", "lexicon"}, "r1": {"lexicon"}, "r2": {"lexicon"}}
    (decided,) = [m for m in mentions if m["engine"] == "openai"]
    assert (decided["category"], decided["certainty"], decided["laterality"]) == ("pneumonia", "uncertain", "left")
    (queued,) = read_dataset(run, manifest, "review_queue").to_pylist()
    assert (queued["reason"], "category" in queued["kinds"], queued["engine"]) == ("doubt", True, "openai")
    (refused,) = read_dataset(run, manifest, "rejected").to_pylist()
    assert (refused["stage"], refused["code"]) == ("openai", ErrorCode.ENGINE_FAILED)
    assert manifest.metrics["share_doubtful"] == 0.5 and manifest.counts["model_answers_used"] == 1

    gold = tmp_path / "gold.jsonl"
    review(str(run), gold, ask=lambda _: "r")  # a person sides with the rules
    (decision,) = read_gold(Location.parse(str(gold)))
    assert decision.text == DOUBTFUL and len(decision.findings) > 1
    numbers = run_job("evaluate_extraction", f"findings={run}", f"truth={gold}", f"root={tmp_path}").manifest.metrics
    # The run had taken the model's word: one finding of several.
    assert numbers["mention_f1"] == pytest.approx(2 / (1 + len(decision.findings)))
