"""The run: exact resume, clear failures, a calibrated final checkpoint, and real learning."""

from __future__ import annotations

import pytest
import torch

from medfilip import ErrorCode, MedfilipError
from medfilip.model.checkpoint import load_checkpoint
from medfilip.model.distributed import World
from medfilip.training import loop
from medfilip.training.loop import build_model, fit
from medfilip.training.reporter import LocalReporter
from tests.unit.training.synthetic import settings, train_data


class Killed(BaseException):
    """Stands for the death of the process."""


class Fragile(LocalReporter):
    """Dies at a report, after or before the checkpoint was kept."""

    def __init__(self, workdir, at):
        super().__init__(workdir)
        self.at = at

    def report(self, metrics, checkpoint):
        super().report(metrics, checkpoint)
        if len(self.history) == self.at:
            raise Killed


def run(folder, reporter=None, **changes):
    reporter = reporter or LocalReporter(folder)
    result = fit(settings(**{"report_steps": 1, **changes}), train_data(), World(), reporter, folder)
    return result, reporter


@pytest.mark.parametrize("at", [1, 3])  # the last step has no learning rate: what it is told changes nothing
def test_killed_and_resumed_equals_undisturbed(tmp_path, at):
    expected, whole = run(tmp_path / "a")
    with pytest.raises(Killed):
        run(tmp_path / "b", Fragile(tmp_path / "b", at=at))
    found, rest = run(tmp_path / "b")
    assert len(rest.history) == len(whole.history) - at
    losses = [entry["loss"] for entry in whole.history[at:]]
    assert [entry["loss"] for entry in rest.history] == pytest.approx(losses, abs=1e-6)
    expected_state = load_checkpoint(expected.folder).model.state_dict()
    for name, value in load_checkpoint(found.folder).model.state_dict().items():
        torch.testing.assert_close(value, expected_state[name], rtol=0, atol=1e-6)
    assert found.metrics["validation_loss"] == pytest.approx(expected.metrics["validation_loss"], abs=1e-6)


def test_an_unfinished_checkpoint_is_not_resumed(tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, Fragile(tmp_path, at=2))
    reporter = LocalReporter(tmp_path)
    assert reporter.latest_checkpoint().name == "step-00000002"
    (tmp_path / "step-00000002" / "hashes.json").unlink()
    assert reporter.latest_checkpoint().name == "step-00000001"


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    with pytest.raises(Killed):
        run(tmp_path, Fragile(tmp_path, at=1))
    with pytest.raises(MedfilipError) as caught:
        run(tmp_path, learning_rate=0.5)
    assert caught.value.code == ErrorCode.CONFIG_INVALID


def test_a_finished_run_is_only_read_again(tmp_path, monkeypatch):
    first, _ = run(tmp_path)
    monkeypatch.setattr(loop, "train_step", None)
    again, _ = run(tmp_path)
    assert again.fingerprint == first.fingerprint


def test_old_checkpoints_are_deleted(tmp_path):
    run(tmp_path)
    assert len(list(tmp_path.glob("step-*"))) == 2


def test_a_loss_that_is_no_number_stops_the_run(tmp_path, monkeypatch):
    def broken(*arguments, **options):
        return torch.tensor(float("nan")), torch.tensor(1.0)

    monkeypatch.setattr(loop, "train_step", broken)
    with pytest.raises(MedfilipError, match="step 1 of 4") as caught:
        run(tmp_path)
    assert caught.value.code == ErrorCode.TRAINING_DIVERGED


def test_more_processes_than_images_in_a_batch_are_refused(tmp_path):
    with pytest.raises(MedfilipError, match="9 processes"):
        fit(settings(), train_data(), World(0, 9), LocalReporter(tmp_path), tmp_path)


def test_equal_settings_give_equal_models():
    data = train_data()
    first, second = (build_model(settings(seed=3), data, World()) for _ in range(2))
    assert first.tokenizer.to_json() == second.tokenizer.to_json()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
