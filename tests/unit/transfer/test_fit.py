"""Cells are trained: what is unknown does not count, a run that goes on ends as one that was never disturbed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.model.distributed import World
from medfilip.training.order import rank_slice
from medfilip.training.reporter import LocalReporter
from medfilip.transfer import fit as fitting
from medfilip.transfer.cells import tune
from medfilip.transfer.classifier import Classifier, masked_loss
from medfilip.transfer.problems import Classification, Segmentation
from medfilip.transfer.segmenter import Segmenter
from medfilip.transfer.settings import TuneSettings
from medfilip.transfer.towers import start
from tests.unit.transfer.world import cell, material


def test_unknowns_give_no_loss_and_no_gradient():
    logits = torch.tensor([[0.5, -1.0], [2.0, 0.1]], requires_grad=True)
    truth = torch.tensor([[1, -1], [0, 1]])
    loss = masked_loss(logits, truth, 3)
    loss.backward()
    known = torch.stack([logits[0, 0], logits[1, 0], logits[1, 1]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(known, torch.tensor([1.0, 0.0, 1.0]))
    torch.testing.assert_close(loss, expected)
    assert logits.grad[0, 1] == 0 and (logits.grad != 0).sum() == 3


def test_a_head_begins_at_the_share_of_each_label(tiny_checkpoint):
    model = Classifier(start("random", tiny_checkpoint, 0).tower, 2)
    model.expect(np.array([[1, -1], [1, 0], [0, 0], [1, -1]]))
    torch.testing.assert_close(model(torch.randn(3, 1, 32, 32)).sigmoid()[0], torch.tensor([3.5 / 5, 0.5 / 3]))


def _problem(kind, checkpoint):
    given = material(checkpoint, segment=kind == "segment")
    tower = start("checkpoint", checkpoint, 0).tower
    if kind == "segment":
        torch.manual_seed(0)
        model = Segmenter(tower, 32, 8)
        return Segmentation(model, given.images, given.labelled, given.mask, given.tune.augment, 0)
    return Classification(Classifier(tower, 3), given.images, given.labelled, given.tune.augment, 0)


@pytest.mark.parametrize("kind", ["classify", "segment"])
@pytest.mark.parametrize("size", [2, 3, 9])
def test_the_parts_of_several_processes_add_up_to_the_whole(kind, size, tiny_checkpoint):
    problem, batch = _problem(kind, tiny_checkpoint), np.array([0, 3, 5, 7, 8, 11, 12])
    whole = problem.loss(batch, slice(0, len(batch)), 0)
    whole.backward()
    expected = {name: one.grad.clone() for name, one in problem.module.named_parameters() if one.grad is not None}
    problem.module.zero_grad()
    parts = [problem.loss(batch, rank_slice(len(batch), World(rank, size)), 0) for rank in range(size)]
    for part in parts:
        part.backward()
    torch.testing.assert_close(torch.stack(parts).sum(), whole)
    for name, one in problem.module.named_parameters():
        if one.grad is not None:
            torch.testing.assert_close(one.grad, expected[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", ["full", "segment"])
def test_a_killed_cell_goes_on_to_the_weights_of_an_undisturbed_one(mode, tiny_checkpoint, tmp_path, monkeypatch):
    given = material(tiny_checkpoint, segment=mode == "segment")
    quiet = tune(cell(mode), given, World(), LocalReporter(tmp_path / "quiet"), tmp_path / "quiet")
    step, taken = fitting._step, []

    def fragile(*arguments):
        taken.append(arguments[4])
        if len(taken) == 4:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(fitting, "_step", fragile)
    workdir = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        tune(cell(mode), given, World(), LocalReporter(workdir), workdir)
    resumed = tune(cell(mode), given, World(), LocalReporter(workdir), workdir)
    assert taken == [0, 1, 2, 3, 2, 3, 4, 5], "the steps since the last state are done again, no others"
    assert resumed.record == quiet.record
    np.testing.assert_allclose(resumed.scores, quiet.scores, rtol=0, atol=1e-6)
    for (name, value), other in zip(resumed.model.state_dict().items(), quiet.model.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, rtol=0, atol=1e-6, msg=name)
    again = tune(cell(mode), given, World(), LocalReporter(workdir), workdir)
    assert len(taken) == 8, "no step is left"
    np.testing.assert_array_equal(again.scores, resumed.scores)


def test_another_cells_state_is_not_resumed(tiny_checkpoint, tmp_path, monkeypatch):
    given = material(tiny_checkpoint)
    tune(cell(), given, World(), LocalReporter(tmp_path), tmp_path)
    taken, step = [], fitting._step
    monkeypatch.setattr(fitting, "_step", lambda *arguments: taken.append(arguments[4]) or step(*arguments))
    tune(cell(seed=1), given, World(), LocalReporter(tmp_path), tmp_path)
    assert taken == list(range(6))


def test_the_best_step_is_chosen_on_validation_and_its_weights_are_kept(tiny_checkpoint, tmp_path, monkeypatch):
    given = material(tiny_checkpoint, learning_rate=3e-3)
    looks, kept = iter([0.6, 0.9, 0.7]), []

    def quality(self, rows, predicted):
        kept.append({name: value.clone() for name, value in self.module.state_dict().items()})
        assert rows.tolist() == given.labelled.rows("validation").tolist()
        return next(looks)

    monkeypatch.setattr(Classification, "quality", quality)
    found = tune(cell(), given, World(), LocalReporter(tmp_path), tmp_path)
    assert found.record["best_step"] == 4 and found.record["validation"] == 0.9
    assert all(torch.equal(value, kept[1][name]) for name, value in found.model.state_dict().items())
    assert any(not torch.equal(value, kept[1][name]) for name, value in kept[2].items())
    assert len(found.scores) == len(given.labelled.rows("test"))


def test_equal_steps_whatever_the_initialisation_and_the_share(tiny_checkpoint, tmp_path):
    given = material(tiny_checkpoint)
    records = [
        tune(one, given, World(), LocalReporter(tmp_path / one.name), tmp_path / one.name).record
        for one in (cell(), cell(init="random"), cell(fraction=0.1), cell(init="random", fraction=0.1))
    ]
    assert {record["steps"] for record in records} == {6}
    assert records[0]["weights"] == records[2]["weights"] != records[1]["weights"] == records[3]["weights"]
    assert records[0]["weights"] == start("checkpoint", tiny_checkpoint, 0).weights
    assert [record["patients"] for record in records] == [10, 10, 1, 1]


def test_learning_improves_on_the_training_set(tiny_checkpoint, tmp_path):
    given = material(tiny_checkpoint, steps=60, evaluate_every=60, global_batch=20)
    problem = Classification(
        Classifier(start("random", tiny_checkpoint, 0).tower, 3), given.images, given.labelled, given.tune.augment, 0
    )
    train = given.labelled.rows("train")
    before = problem.loss(train, slice(0, len(train)), 0).item()
    found = tune(cell(init="random"), given, World(), LocalReporter(tmp_path), tmp_path)
    trained = Classification(found.model, given.images, given.labelled, given.tune.augment, 0)
    assert trained.loss(train, slice(0, len(train)), 0).item() < 0.7 * before


def test_a_diverged_cell_is_told(tiny_checkpoint, tmp_path, monkeypatch):
    given = material(tiny_checkpoint)
    monkeypatch.setattr(Classification, "loss", lambda self, *_: self.module.head.bias.sum() * float("nan"))
    with pytest.raises(MedfilipError) as caught:
        tune(cell(), given, World(), LocalReporter(tmp_path), tmp_path)
    assert caught.value.code is ErrorCode.TRAINING_DIVERGED


def test_a_damaged_state_is_refused(tiny_checkpoint, tmp_path):
    given = material(tiny_checkpoint)
    tune(cell(), given, World(), LocalReporter(tmp_path), tmp_path)
    (tmp_path / "step-00000006" / "best.safetensors").write_bytes(b"broken")
    with pytest.raises(MedfilipError, match=r"best\.safetensors") as caught:
        tune(cell(), given, World(), LocalReporter(tmp_path), tmp_path)
    assert caught.value.code is ErrorCode.CHECKPOINT_INVALID


def test_a_mirrored_chest_is_no_augmentation_here():
    with pytest.raises(ValueError, match="heart on the other side"):
        TuneSettings.model_validate({"augment": {"flip": 0.5}})
