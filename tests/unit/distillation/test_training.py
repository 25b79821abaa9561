"""Training: the loss sees answers alone, and a killed run ends with the weights of an undisturbed one."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.distillation.__main__ import main
from medfilip.distillation.dataset import TRAIN, Row
from medfilip.distillation.encoding import IGNORED, encode, epoch_batches, prompt_texts
from medfilip.distillation.prepare import load_prepared, prepare, save_prepared
from medfilip.distillation.prepare import main as prepare_main
from medfilip.distillation.replying import StudentEngine
from medfilip.distillation.settings import DistillSettings
from medfilip.distillation.student import StudentSettings, make_student, make_tokenizer, open_tokenizer, save_student
from medfilip.distillation.train import Run, answer_loss, fit, schedule, start_run
from medfilip.extraction.prompt import PROMPT_VERSION, STUDENT_PROMPT, load_prompt, prompt_version
from medfilip.findings.ontology import load_ontology
from pipelines.llm_settings import VllmSettings
from pipelines.llm_task import EXTRACTION, KNOWLEDGE
from pipelines.vllm_plan import count_tokens, vllm_fingerprint


class Killed(Exception):
    pass


def start(settings: DistillSettings, rows: list[Row]) -> Run:
    return start_run(settings, prepare(settings, rows, {}, data="test"), device="cpu")


def weights(run: Run) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(
    settings: DistillSettings, rows: list[Row], tmp_path: Path
) -> None:
    told: list[dict[str, float]] = []
    whole = start(settings, rows)
    fit(whole, tmp_path / "whole", lambda numbers: told.append(dict(numbers)))
    assert [numbers["step"] for numbers in told] == [3, 6] and told[1]["loss"] < told[0]["loss"]

    def kill(step: int) -> None:
        if step == 5:
            raise Killed

    with pytest.raises(Killed):
        fit(start(settings, rows), tmp_path / "killed", lambda _: None, after_step=kill)
    resumed, steps = start(settings, rows), []
    fit(resumed, tmp_path / "killed", lambda _: None, after_step=steps.append)
    assert steps == [5, 6]
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(resumed).items())
    other = start(settings.model_copy(update={"learning_rate": 1e-3}), rows)
    with pytest.raises(MedfilipError) as caught:
        fit(other, tmp_path / "killed", lambda _: None)
    assert caught.value.code is ErrorCode.CONFIG_INVALID


def test_gradient_comes_from_answers_alone(settings: DistillSettings, rows: list[Row]) -> None:
    run = start(settings, rows)
    ids_BT, targets_BT = (torch.from_numpy(a) for a in run.train.batch(np.arange(4), run.padding))
    changed_BT = targets_BT.clone()
    prompt = int(run.train.prompts_N[0])
    assert (targets_BT[0, : prompt - 1] == IGNORED).all() and targets_BT[0, prompt - 1] == ids_BT[0, prompt]
    length = int(run.train.lengths[0])
    assert targets_BT[0, length - 2] == run.tokenizer.eos_token_id and (targets_BT[0, length - 1 :] == IGNORED).all()
    states_BTD = run.model.model(input_ids=ids_BT).last_hidden_state.detach().requires_grad_()
    answers_BT = targets_BT != IGNORED
    loss = torch.nn.functional.cross_entropy(
        run.model.lm_head(states_BTD).flatten(0, 1), changed_BT.flatten(), ignore_index=IGNORED
    )
    assert torch.allclose(loss, answer_loss(run.model, ids_BT, targets_BT))
    loss.backward()
    assert states_BTD.grad is not None
    assert (states_BTD.grad.abs().sum(-1) > 0)[answers_BT].all()
    assert not states_BTD.grad[~answers_BT].any()


def test_the_answer_follows_the_prompt_as_an_engine_builds_it(settings: DistillSettings, rows: list[Row]) -> None:
    run = start(settings, rows)
    first = next(row for row in rows if row.split == TRAIN)
    ids = run.train.ids[: run.train.starts_N1[1]].tolist()
    prompt = int(run.train.prompts_N[0])
    text = run.tokenizer.apply_chat_template(
        run.prompt.messages(first.text, first.context), tokenize=False, add_generation_prompt=True
    )
    assert ids[:prompt] == run.tokenizer.encode(text, add_special_tokens=False)
    assert run.tokenizer.decode(ids[prompt:-1]) == first.reply and ids[-1] == run.tokenizer.eos_token_id
    assert next(prompt_texts(run.tokenizer, run.prompt, [(first.text, first.context)])) == text


def test_a_word_has_the_same_tokens_in_a_sentence_and_in_quotes(rows: list[Row]) -> None:
    tokenizer = make_tokenizer((text for row in rows for text in (row.text, row.reply)), 600)
    sentence, quoted = (tokenizer.encode(text) for text in ("a small effusion", '["effusion"'))
    word = tokenizer.encode("effusion")
    assert sentence[-len(word) :] == word and quoted[1 : 1 + len(word)] == word
    assert tokenizer.decode(tokenizer.encode("ünïcode 6.5 mm, t12")) == "ünïcode 6.5 mm, t12"


def test_rows_above_the_context_are_refused_and_never_cut(rows: list[Row]) -> None:
    tokenizer = make_tokenizer((row.text for row in rows), 400)
    prompt = load_prompt(STUDENT_PROMPT)
    whole = encode(tokenizer, prompt, rows, longest=1_024)
    longest = int(whole.lengths.max())
    short = encode(tokenizer, prompt, rows, longest=longest - 1)
    assert whole.refused == 0 and short.refused == int((whole.lengths == longest).sum()) > 0
    assert len(short) + short.refused == len(rows)


def test_batches_hold_each_row_once_within_the_bound() -> None:
    lengths = np.random.default_rng(0).integers(5, 90, 1_000)
    batches = epoch_batches(lengths, 1_024, seed=1, epoch=2)
    assert sorted(np.concatenate(batches).tolist()) == list(range(1_000))
    assert all(len(rows) * (-(-lengths[rows].max() // 16) * 16) <= 1_024 for rows in batches)
    again = epoch_batches(lengths, 1_024, seed=1, epoch=2)
    assert all(np.array_equal(one, other) for one, other in zip(batches, again, strict=True))
    assert not np.array_equal(epoch_batches(lengths, 1_024, seed=1, epoch=3)[0], batches[0])


def test_the_rate_rises_and_falls() -> None:
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == 1.0 == rates[9] and rates[-1] < 0.01


def test_too_large_a_student_and_a_base_that_is_none_are_refused(rows: list[Row], tmp_path: Path) -> None:
    tokenizer = make_tokenizer((row.text for row in rows), 400)
    with pytest.raises(MedfilipError, match="parameters, above"):
        make_student(StudentSettings(hidden_size=640, heads=10, layers=8), tokenizer, prompt=STUDENT_PROMPT, seed=0)
    with pytest.raises(MedfilipError, match="no even number"):
        make_student(StudentSettings(hidden_size=320, heads=7), tokenizer, prompt=STUDENT_PROMPT, seed=0)
    with pytest.raises(MedfilipError) as caught:
        open_tokenizer(str(tmp_path))
    assert caught.value.code is ErrorCode.INPUT_NOT_FOUND


def test_the_command_writes_a_model_that_names_its_prompt(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = ["student.vocabulary=512", "student.hidden_size=64", "student.layers=1", "student.heads=2"]
    rest = ["student.intermediate_size=96", "max_steps=2", "batch_tokens=512", "exact_rows=2", "validation_rows=4"]
    assert main(["--data", str(data), "--out", str(tmp_path), *shape, *rest]) == 0
    folder = tmp_path / "model"
    assert prompt_version(str(folder)) == STUDENT_PROMPT != prompt_version(str(tmp_path)) == PROMPT_VERSION
    assert json.loads((tmp_path / "log.jsonl").read_text())["step"] == 2
    card, facts = (folder / "README.md").read_text(), json.loads((folder / "medfilip.json").read_text())
    assert "synthetic sentences alone" in card and facts["fingerprint"] in card and "Research use only" in card
    engine = StudentEngine.load(folder)
    results = engine.extract_many([("small effusion", None), ("x" * 601, None)])
    assert results[1].status == ErrorCode.SENTENCE_TOO_LONG and engine.fingerprint
    assert main(["epochs=2", "--data", str(data), "--out", str(tmp_path / "b"), "epoch=2"]) == 2
    assert "config_unknown_key" in capsys.readouterr().err

    vllm = VllmSettings(model=str(folder))
    task = EXTRACTION.for_model(vllm.model)
    assert task.template() == load_prompt(STUDENT_PROMPT) and KNOWLEDGE.for_model(vllm.model) is KNOWLEDGE
    assert EXTRACTION.for_model("").template() == load_prompt()
    assert count_tokens(vllm.model, "a", task=task) < 30 < count_tokens(vllm.model, "a")
    config = json.loads((folder / "config.json").read_text())
    before = vllm_fingerprint(vllm)
    (folder / "hashes.json").unlink()  # with it, what follows would be refused
    (folder / "config.json").write_text(json.dumps(config | {"medfilip_prompt": PROMPT_VERSION}))
    assert vllm_fingerprint(vllm) != before
    (folder / "config.json").write_text(json.dumps(config | {"medfilip_prompt": "student-v9"}))
    with pytest.raises(MedfilipError, match="no prompt version 'student-v9'"):
        vllm_fingerprint(vllm)


def test_a_prepared_folder_trains_as_its_set_does(
    settings: DistillSettings, rows: list[Row], data: Path, tmp_path: Path
) -> None:
    prepared = prepare(settings, rows, {}, data="test")
    save_prepared(prepared, tmp_path / "ready")
    loaded = load_prepared(tmp_path / "ready", settings)
    for one, other in ((prepared.train, loaded.train), (prepared.validation, loaded.validation)):
        assert np.array_equal(one.ids, other.ids) and np.array_equal(one.starts_N1, other.starts_N1)
        assert np.array_equal(one.prompts_N, other.prompts_N) and one.refused == other.refused
    assert (loaded.key, loaded.held_out) == (prepared.key, prepared.held_out)
    assert start_run(settings, loaded, device="cpu").name == start_run(settings, prepared, device="cpu").name
    with pytest.raises(MedfilipError, match="another vocabulary"):
        load_prepared(tmp_path / "ready", settings.model_copy(update={"context": 900}))
    assert prepare_main(["--data", str(data), "--out", str(tmp_path / "b"), "student.vocabulary=400"]) == 0
    assert main(["--data", str(tmp_path), "--out", str(tmp_path / "c")]) == 1
    few = [row for row in rows if row.split == TRAIN]
    with pytest.raises(MedfilipError) as caught:
        prepare(settings, few, {}, data="test")
    assert caught.value.code is ErrorCode.NOT_ENOUGH_DATA


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers for what it is about to drop
def test_an_adapter_needs_peft_and_a_base_its_own_tokenizer(
    settings: DistillSettings, rows: list[Row], tmp_path: Path
) -> None:
    made = start(settings, rows)
    save_student(made.model, made.tokenizer, tmp_path / "base", dtype="float32")
    given = settings.model_copy(update={"base": str(tmp_path / "base")})
    run = start(given, rows)
    assert all(torch.equal(a, b) for a, b in zip(made.model.parameters(), run.model.parameters(), strict=True))
    if importlib.util.find_spec("peft") is None:
        with pytest.raises(MedfilipError) as caught:
            start(given.model_copy(update={"lora_rank": 2}), rows)
        assert caught.value.code is ErrorCode.DEPENDENCY_MISSING
        return
    adapted = start(given.model_copy(update={"lora_rank": 2, "max_steps": 2}), rows)
    fit(adapted, tmp_path / "state", lambda _: None)
    save_student(adapted.model, adapted.tokenizer, tmp_path / "merged", dtype="float32")
    names = {file.name for file in (tmp_path / "merged").iterdir()}
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "merged"))
    assert before.keys() == after.keys() and not any("adapter" in name for name in names)
    query = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(before[query], after[query])


def test_a_student_asks_without_instructions() -> None:
    prompt = load_prompt(STUDENT_PROMPT)
    assert prompt.messages("a", "b") == [{"role": "user", "content": "Before it: b\n<sentence>a</sentence>"}]
    assert prompt.fingerprint != load_prompt().fingerprint


def test_replies_come_back_in_the_order_of_the_questions(settings: DistillSettings, rows: list[Row]) -> None:
    run = start(settings, rows)
    asked = [("small left pleural effusion today", None), ("edema", None), ("no change", "left lung:")]
    engines = [
        StudentEngine(run.model, run.tokenizer, run.prompt, load_ontology(), batch_size=size, max_tokens=6)
        for size in (1, 3)
    ]
    one, three = (engine.replies(asked) for engine in engines)
    assert one == three and all(tokens <= 6 for _, tokens in one)
