"""Injection on Ray: its modes, what a model adds over real HTTP, and that nothing is asked twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.findings.codes import CERTAINTIES, Codebook
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.inject import training_texts
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.knowledge.lint import lint
from medfilip.knowledge.reading import read_knowledge
from medfilip.storage.location import Location
from medfilip.storage.run import RunSpec, open_run
from medfilip.storage.schemas import RESOLVED_FINDINGS
from medfilip.storage.shards import read_dataset, write_shard
from tests.ray.conftest import Ran, run_job
from tests.support.chat_server import Answer, ChatServer, chat_server

ONTOLOGY, KNOWLEDGE = load_ontology(), load_knowledge()
DRAFT = {
    "density": ["ground-glass haze", "no air"],
    "shape": ["paving stone pattern"],
    "margin": ["sharp margin"],
    "distribution": ["both lungs"],
    "site": [],
    "secondary_signs": [],
    "descriptions": [
        "haze of both lungs crossed by a fine net of lines",
        "paving stones of grey lung between thin white lines",
        "patchwork of hazy areas with lines running through them",
    ],
}
TOLD = ["soft shadow at the usual place", "gently curved outer edge"]


class Model:
    """Answers requests about knowledge; ``crazy paving`` gets a draft, ``tree in bud`` nonsense, effusions nothing."""

    def __init__(self) -> None:
        self.down = False

    def answer(self, request: str, body: dict[str, Any]) -> Answer:
        asked = json.loads(request)
        schema = body["response_format"]["json_schema"]["schema"]
        assert ("descriptions" in schema["properties"]) == ("draft" in asked)
        if self.down:
            return Answer(status=500)
        if "draft" in asked:
            return Answer(json.dumps(DRAFT) if asked["draft"] == "crazy paving" else '{"density": [')
        if "effusion" in asked["describe"]["category"]:
            return Answer('{"phrases": ["no fluid", "5 mm of fluid"]}')
        return Answer(json.dumps({"phrases": [*TOLD, "a 5 mm rim"]}))


@pytest.fixture(scope="module")
def findings(extracted: Ran, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The findings of the phantoms, and some of categories that the ontology does not know."""
    rows = read_dataset(extracted.location, extracted.manifest, "resolved_findings").to_pylist()
    names = ["crazy paving", "Crazy paving 12", "tree in bud", "tree in bud", "seen once"]
    more = [
        {**rows[number], "finding_id": number, "category": f"other:{name}", "certainty": "present"}
        for number, name in enumerate(names)
    ]
    root = Location.parse(tmp_path_factory.mktemp("findings"))
    with open_run(root, RunSpec("extract", {"test": "more"})) as run:
        table = RESOLVED_FINDINGS.from_rows([*rows, *more])
        shards = [
            write_shard(run.location, f"resolved_findings/part-{n:05d}.parquet", RESOLVED_FINDINGS, part)
            for n, part in enumerate((table.slice(0, 20), table.slice(20)))
        ]
        manifest = run.publish({"resolved_findings": shards})
        return Ran(run.location, manifest)


def inject(findings: Ran, ingested: Ran, root: Path, *more: str, new_run: bool = False) -> Ran:
    given = (f"findings={findings.location}", f"images={ingested.location}", f"root={root}", *more)
    return Ran.of(run_job("inject", *given, new_run=new_run))


def asking(server: ChatServer) -> tuple[str, ...]:
    openai = (f"openai.base_url={server.url}", "openai.model=org/m", "openai.max_tries=1", "allow_remote=true")
    return ("attributes=llm", "llm.engine=openai", *openai)


def texts_of(ran: Ran) -> dict[int, str]:
    table = read_dataset(ran.location, ran.manifest, "texts")
    return dict(zip(table["text_id"].to_pylist(), table["text"].to_pylist(), strict=True))


@pytest.mark.parametrize("mode", ["conditioned", "category", "none"])
def test_the_mode_decides_the_texts_and_is_recorded(mode: str, findings: Ran, ingested: Ran, tmp_path: Path) -> None:
    ran = inject(findings, ingested, tmp_path, f"attributes={mode}", "variants=5")
    assert ran.manifest.versions["injection"] == mode
    assert ran.manifest.config == {"attributes": mode, "variants": 5}
    assert ran.manifest.counts["findings_outside_the_ontology"] == 5
    texts, names = texts_of(ran), Codebook.of(ONTOLOGY).categories
    by_study: dict[str, list[list[str]]] = {}
    for row in read_dataset(findings.location, findings.manifest, "resolved_findings").to_pylist():
        if row["category"] in ONTOLOGY.categories:
            written = training_texts(row, KNOWLEDGE, ONTOLOGY, mode=mode, variants=5)
            by_study.setdefault(row["study_id"], []).append(written)
    pairs = read_dataset(ran.location, ran.manifest, "pairs").to_pylist()
    for pair in pairs:
        found = [[texts[i] for i in code["text_ids"]] for code in pair["findings"]]
        assert found == by_study.get(pair["study_id"], [])
        assert all(names[code["category"]] and CERTAINTIES[code["certainty"]] for code in pair["findings"])


def test_another_mode_or_number_of_variants_is_another_run(findings: Ran, ingested: Ran, tmp_path: Path) -> None:
    runs = [inject(findings, ingested, tmp_path, *more) for more in ((), ("variants=3",), ("attributes=none",))]
    assert len({ran.manifest.config_fingerprint for ran in runs}) == 3
    again = inject(findings, ingested, tmp_path, "attributes=conditioned", "variants=8")
    assert again.location == runs[0].location, "the defaults"


def test_a_model_drafts_entries_and_describes_findings_once(findings: Ran, ingested: Ran, tmp_path: Path) -> None:
    model = Model()
    with chat_server(model.answer) as server:
        ran = inject(findings, ingested, tmp_path, *asking(server))
        requests = server.sentences()
        counts = ran.manifest.counts
        drafts = [json.loads(request)["draft"] for request in requests if request.startswith('{"draft"')]
        assert sorted(drafts) == ["crazy paving", "tree in bud"], "seen once is below llm.min_count"
        assert len(requests) == len(set(requests)) == counts["draft_requests"] + counts["describe_requests"]
        assert counts["requests_from_cache"] == 0 and counts["entries_drafted"] == 1
        described = counts["findings_described"]
        unfit = sum("effusion" in request for request in requests)
        assert described == counts["describe_requests"] - unfit > 0 and unfit > 0
        assert ran.manifest.rejected == {ErrorCode.DRAFT_UNFIT: unfit, ErrorCode.REPLY_INVALID: 1}
        assert counts["dropped_measurement"] == described + unfit
        assert counts["dropped_negation"] == 1 + unfit

        # Another run of other settings has the same questions, and asks none of them.
        other = inject(findings, ingested, tmp_path, *asking(server), "variants=4")
        assert len(server.asked) == len(requests) and other.location != ran.location
        assert other.manifest.counts["requests_from_cache"] == len(requests)
        assert other.manifest.counts["findings_described"] == described
        reports = read_dataset(ingested.location, ingested.manifest, "reports")["text"].to_pylist()
        sent = json.dumps(server.asked)
        assert not any(line.strip() in sent for text in reports for line in text.split(".") if len(line) > 20)
        assert "12" not in "".join(requests)

    assert ran.manifest.versions["injection"] == "conditioned"
    assert [file.path for file in ran.manifest.files] == ["drafts.yaml"]
    known, flaws = read_knowledge(str(Path(ran.location.path) / "drafts.yaml"), ONTOLOGY)
    assert list(known.entries) == ["other:crazy paving"] and known.entries["other:crazy paving"].review == "unreviewed"
    assert not [problem for problem in lint(known, ONTOLOGY, flaws) if problem.severity == "error"]
    texts = texts_of(ran)
    told = [text for text in texts.values() if ", ".join(TOLD) in text]
    assert told and not any("effusion" in text.split(".")[0] or text.startswith("no ") for text in told)
    assert not any("5 mm" in text for text in texts.values())


def test_a_model_that_is_down_costs_its_texts_and_is_asked_again_by_the_next_run(
    findings: Ran, ingested: Ran, tmp_path: Path
) -> None:
    model = Model()
    model.down = True
    with chat_server(model.answer) as server:
        few = ("llm.texts=5", "llm.drafts=1")
        first = inject(findings, ingested, tmp_path, *asking(server), *few)
        assert first.manifest.rejected == {ErrorCode.ENGINE_FAILED: 6} and not first.manifest.files
        assert first.manifest.datasets["pairs"].rows, "pairs are written all the same"
        model.down = False
        second = inject(findings, ingested, tmp_path, *asking(server), *few, new_run=True)
        assert len(server.asked) == 12
        assert ErrorCode.ENGINE_FAILED not in second.manifest.rejected
        third = inject(findings, ingested, tmp_path, *asking(server), *few, new_run=True)
        assert len(server.asked) == 12 and third.manifest.counts["requests_from_cache"] == 6


def test_a_killed_run_resumes_without_asking_again(
    findings: Ran, ingested: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipelines import inject as job

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with chat_server(Model().answer) as server:
        few = ("llm.texts=5", "llm.drafts=1")
        with monkeypatch.context() as patch:
            patch.setattr(job._InjectJob, "_publish", killed)
            with pytest.raises(KeyboardInterrupt):
                inject(findings, ingested, tmp_path, *asking(server), *few)
        assert len(server.asked) == 6
        ran = inject(findings, ingested, tmp_path, *asking(server), *few)
        assert len(server.asked) == 6
        assert ran.manifest.counts["requests_from_cache"] == 0, "its own answers are not counted as another's"


def test_nothing_is_sent_without_permission(findings: Ran, ingested: Ran, tmp_path: Path) -> None:
    given = ("attributes=llm", "llm.engine=openai", "openai.base_url=http://127.0.0.1:1/v1", "openai.model=m")
    with pytest.raises(MedfilipError) as caught:
        inject(findings, ingested, tmp_path, *given)
    assert caught.value.code is ErrorCode.REMOTE_NOT_ALLOWED and "names and slots of findings" in caught.value.message


def test_without_questions_nobody_is_asked(findings: Ran, ingested: Ran, tmp_path: Path) -> None:
    with chat_server(Model().answer) as server:
        ran = inject(findings, ingested, tmp_path, *asking(server), "llm.texts=0", "llm.drafts=0", "quiet=true")
        assert not server.asked and not ran.manifest.files
    plain = inject(findings, ingested, tmp_path, "attributes=conditioned")
    assert texts_of(ran) == texts_of(plain)


def test_sentences_instead_of_findings_are_those_the_findings_were_read_from(
    extracted: Ran, ingested: Ran, root: Path
) -> None:
    given = (f"findings={extracted.location}", f"images={ingested.location}", f"root={root}")
    injected = Ran.of(run_job("inject", *given, "attributes=sentences"))
    texts = read_dataset(injected.location, injected.manifest, "texts").to_pylist()
    sentences = read_dataset(extracted.location, extracted.manifest, "sentences").to_pylist()
    known = {row["text"]: row["sentence_id"] for row in sentences}
    assert texts and all(row["text"] in known for row in texts)
    mentions = read_dataset(extracted.location, extracted.manifest, "mentions").to_pylist()
    said = {(mention["sentence_id"], mention["category"]) for mention in mentions}
    about: dict[str, set[str]] = {}
    names, by_id = Codebook.of(load_ontology()).categories, {row["text_id"]: row["text"] for row in texts}
    for pair in read_dataset(injected.location, injected.manifest, "pairs").to_pylist():
        for code in pair["findings"]:
            for text_id in code["text_ids"]:
                about.setdefault(by_id[text_id], set()).add(names[code["category"]])
    assert all((known[text], category) in said for text, found in about.items() for category in found)
    assert injected.manifest.versions["injection"] == "none"
