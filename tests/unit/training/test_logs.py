"""Where numbers go: event files that a restart never overwrites, copied to storage, and MLflow where it is."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from medfilip import ErrorCode, MedfilipError
from medfilip.storage.location import Location
from medfilip.training.logs import EventLog, ManyLogs, MlflowLog, MlflowSettings
from tests.unit.training.events import numbers


def test_numbers_are_read_back_from_the_events(tmp_path):
    log = EventLog(tmp_path)
    log.write(10, {"loss": 0.5, "speed": 3.0}, "step")
    log.write(20, {"loss": 0.25}, "step")
    log.close()
    assert numbers(tmp_path) == {("step/loss", 10): 0.5, ("step/speed", 10): 3.0, ("step/loss", 20): 0.25}


def test_a_restart_adds_a_file_that_takes_the_repeated_steps_back(tmp_path):
    for first in (10, 20):
        log = EventLog(tmp_path)
        log.write(first, {"loss": first / 10}, "step")
        log.write(first + 10, {"loss": first / 10 + 1}, "step")
        log.close()
    assert len(list(tmp_path.iterdir())) == 2
    assert numbers(tmp_path) == {("step/loss", 10): 1.0, ("step/loss", 20): 2.0, ("step/loss", 30): 3.0}


def test_the_mirror_holds_all_that_was_flushed(tmp_path):
    log = EventLog(tmp_path / "here", Location.parse(tmp_path / "there"))
    log.flush()
    log.write(10, {"loss": 0.5}, "step")
    log.flush()
    assert numbers(tmp_path / "there") == {("step/loss", 10): 0.5}
    log.write(20, {"loss": 0.25}, "step")
    assert ("step/loss", 20) not in numbers(tmp_path / "there")
    log.close()
    assert numbers(tmp_path / "there") == numbers(tmp_path / "here")
    assert len(list((tmp_path / "there").iterdir())) == 1


def test_mlflow_that_is_not_installed_is_told(monkeypatch):
    monkeypatch.setattr("medfilip.training.logs.find_spec", lambda name: None)
    with pytest.raises(MedfilipError, match=r"medfilip\[mlflow\]") as caught:
        MlflowLog(MlflowSettings(tracking_uri="http://localhost"), "run", {})
    assert caught.value.code is ErrorCode.DEPENDENCY_MISSING


class Server:
    """Stands for the client of MLflow, with what its server would keep."""

    def __init__(self):
        self.runs, self.batches, self.down = {}, [], False

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id="7") if self.runs else None

    def create_experiment(self, name):
        return "7"

    def search_runs(self, experiments, text, max_results):
        found = [run for run in self.runs.values() if f"= '{run.tag}'" in text]
        return found[:max_results]

    def create_run(self, experiment, tags, run_name):
        (tag,) = tags.values()
        self.runs[tag] = SimpleNamespace(tag=tag, info=SimpleNamespace(run_id=f"m{len(self.runs)}"))
        return self.runs[tag]

    def log_batch(self, run, metrics=(), params=()):
        if self.down:
            raise OSError
        self.batches.append((run, list(metrics), dict(params)))

    def set_terminated(self, run):
        pass


@pytest.fixture
def server(monkeypatch):
    server = Server()
    parts = {"mlflow": {"MlflowClient": lambda uri: server}, "mlflow.entities": {}, "mlflow.exceptions": {}}
    parts["mlflow.entities"] |= {"Param": lambda *item: item, "Metric": lambda *item: item}
    parts["mlflow.exceptions"] |= {"MlflowException": type("MlflowException", (Exception,), {})}
    for name, content in parts.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("medfilip.training.logs.find_spec", lambda name: True)
    return server


def test_mlflow_gets_settings_and_numbers_in_one_run_however_often_it_resumes(server):
    settings = MlflowSettings(tracking_uri="http://localhost")
    for step in (10, 20):
        log = MlflowLog(settings, "ours", {"epochs": 2, "model": {"preset": "tiny"}, "unseen": []})
        log.write(step, {"loss": 0.5}, "step")
        log.close()
    assert {run for run, _, _ in server.batches} == {"m0"}
    assert server.batches[0][2] == {"epochs": "2", "model.preset": "tiny", "unseen": "[]"}
    assert [item[:2] + item[3:] for _, metrics, _ in server.batches for item in metrics] == [
        ("step/loss", 0.5, 10), ("step/loss", 0.5, 20),
    ]  # fmt: skip


def test_mlflow_that_fails_in_mid_run_costs_its_numbers_only(server, tmp_path):
    mlflow = MlflowLog(MlflowSettings(tracking_uri="http://localhost"), "ours", {})
    log = ManyLogs([mlflow, EventLog(tmp_path)])
    server.down = True
    log.write(10, {"loss": 0.5}, "step")
    log.close()
    assert numbers(tmp_path) == {("step/loss", 10): 0.5}
    with pytest.raises(MedfilipError) as caught:
        MlflowLog(MlflowSettings(tracking_uri="http://localhost"), "other", {"epochs": 1})
    assert caught.value.code is ErrorCode.STORAGE_FAILED
