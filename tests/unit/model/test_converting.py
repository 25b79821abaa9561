"""Foreign weights: nothing in a file is ever run, and what is converted is what was saved."""

from __future__ import annotations

import argparse
import collections
import os
import pickle
import warnings
import zipfile

import pytest
import safetensors.torch
import torch

from medfilip import ErrorCode, MedfilipError
from medfilip.model import _weights_worker, converting
from medfilip.model.converting import ConversionLimits, Tensor, convert_weights
from medfilip.model.foreign import find_tensors

WEIGHTS = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.ones(2, dtype=torch.float16)}


class Touch:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def refused(code, *arguments, **options):
    with pytest.raises(MedfilipError) as caught:
        convert_weights(*arguments, **options)
    assert caught.value.code == code and caught.value.fix, caught.value
    return str(caught.value)


@pytest.fixture
def without_process(monkeypatch):
    """Let the worker's function answer here: it costs a second to start."""
    monkeypatch.setattr(
        converting, "_run", lambda source, staging, key, limits: _weights_worker.convert(source, staging, key)
    )


@pytest.mark.usefixtures("without_process")
def test_a_training_checkpoint_is_converted(tmp_path):
    shared = torch.arange(12.0).reshape(3, 4)
    names = {**WEIGHTS, "tied.a": shared, "tied.b": shared, "turned": shared.T, "scalar": torch.tensor(3)}
    content = {
        "state_dict": collections.OrderedDict({f"module.{name}": value for name, value in names.items()}),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}},
        "epoch": 7,
    }
    torch.save(content, tmp_path / "foreign.pt")
    found = convert_weights(tmp_path / "foreign.pt", tmp_path / "out" / "weights.safetensors")
    written = safetensors.torch.load_file(found.file)
    assert written.keys() == names.keys()
    assert all(
        torch.equal(written[name], value) and written[name].dtype == value.dtype for name, value in names.items()
    )
    assert Tensor("layer.weight", (2, 3), "F32") in found.tensors and Tensor("scalar", (), "I64") in found.tensors
    assert set(found.dropped) == {"optimizer", "epoch"}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["weights.safetensors"]


def test_a_malicious_file_is_refused_and_not_run(tmp_path, monkeypatch):
    # the user's own switch to unsafe loading must not reach the reader
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    mark = tmp_path / "ran"
    torch.save({"state_dict": {**WEIGHTS, "x": Touch(mark)}}, tmp_path / "evil.pt")
    told = refused(ErrorCode.WEIGHTS_UNSAFE, tmp_path / "evil.pt", tmp_path / "out.safetensors")
    assert not mark.exists() and not (tmp_path / "out.safetensors").exists()
    assert "run code" in told and "system" in told


def judged(file, key=None):
    """Ask the worker without starting it."""
    report = _weights_worker.convert(file, file.parent, key)
    assert (file.parent / "weights.safetensors").exists() == (report["kind"] == "converted")
    return report["kind"], report.get("reason", "")


def test_an_old_file_with_code_is_not_run(tmp_path):
    mark = tmp_path / "ran"
    torch.save({"x": Touch(mark)}, tmp_path / "evil.pt", _use_new_zipfile_serialization=False)
    assert judged(tmp_path / "evil.pt") == ("unsafe", "it asks for posix.system") and not mark.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_plain_pickle_with_code_is_not_run(protocol, tmp_path):
    mark = tmp_path / "ran"
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"a": Touch(mark)}, protocol=protocol))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert judged(tmp_path / "evil.pt")[0] == "unsafe" and not mark.exists()


def test_a_harmless_class_is_refused_by_name(tmp_path):
    torch.save({"state_dict": WEIGHTS, "args": argparse.Namespace(epochs=3)}, tmp_path / "args.pt")
    assert judged(tmp_path / "args.pt") == ("unsafe", "it asks for argparse.Namespace")


def test_a_program_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/code/__torch__.py", "import os")
        archive.writestr("script/constants.pkl", b"")
        archive.writestr("script/data.pkl", b"")
    assert judged(tmp_path / "script.pt") == ("unsafe", "it is a TorchScript program")


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_unreadable(keep, modern, tmp_path):
    torch.save(WEIGHTS, tmp_path / "whole.pt", _use_new_zipfile_serialization=modern)
    data = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: int(len(data) * keep)])
    assert judged(tmp_path / "cut.pt")[0] == "unreadable"
    (tmp_path / "cut.pt").write_bytes(b"hello world, no weights")
    assert judged(tmp_path / "cut.pt")[0] == "unreadable"


def test_tensors_that_claim_more_than_the_file_holds(tmp_path):
    torch.save({"huge": torch.zeros(1).expand(1 << 20, 1 << 20)}, tmp_path / "bomb.pt")
    assert judged(tmp_path / "bomb.pt") == ("unreadable", "its tensors claim to be far larger than the file")


def test_memory_is_limited(tmp_path):
    torch.save({"a": torch.ones(40 << 18)}, tmp_path / "a.pt")
    limits = ConversionLimits(memory_factor=1, memory_extra_bytes=1)
    told = refused(ErrorCode.WEIGHTS_UNREADABLE, tmp_path / "a.pt", tmp_path / "out.safetensors", limits=limits)
    assert "memory" in told or "died" in told  # a process may not even be able to say so
    assert {path.name for path in tmp_path.iterdir()} == {"a.pt"}


def test_time_and_size_are_limited(tmp_path):
    torch.save(WEIGHTS, tmp_path / "a.pt")
    out = tmp_path / "out.safetensors"
    told = refused(ErrorCode.WEIGHTS_UNREADABLE, tmp_path / "a.pt", out, limits=ConversionLimits(timeout_s=0.05))
    assert "timeout_s" in told
    told = refused(ErrorCode.WEIGHTS_UNREADABLE, tmp_path / "a.pt", out, limits=ConversionLimits(max_file_bytes=10))
    assert "max_file_bytes" in told
    assert {path.name for path in tmp_path.iterdir()} == {"a.pt"}


@pytest.mark.usefixtures("without_process")
def test_a_file_without_weights_and_a_key_that_is_not_there(tmp_path):
    torch.save({"epoch": 3, "ema": {"model": WEIGHTS}}, tmp_path / "odd.pt")
    assert judged(tmp_path / "odd.pt", "ema.teacher")[0] == "no_key"
    told = refused(ErrorCode.CONFIG_INVALID, tmp_path / "odd.pt", tmp_path / "o.safetensors", key="ema.teacher")
    assert "ema.teacher" in told
    assert judged(tmp_path / "odd.pt", "epoch") == ("empty", "there are no tensors in it")
    (tmp_path / "weights.safetensors").unlink(missing_ok=True)
    assert judged(tmp_path / "odd.pt", "ema.model")[0] == "converted"


@pytest.mark.parametrize(
    ("file", "out", "code"),
    [
        ("https://host/weights.pt", "o.safetensors", "uri_not_allowed"),
        ("s3://bucket/weights.pt", "o.safetensors", "uri_not_allowed"),
        ("nowhere.pt", "o.safetensors", "input_not_found"),
        ("a.pt", "o.bin", "config_invalid"),
        ("a.pt", "a.safetensors", "config_invalid"),
    ],
)  # fmt: skip
def test_places_that_are_refused(file, out, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(WEIGHTS, "a.pt")
    (tmp_path / "a.safetensors").touch()
    refused(code, file, tmp_path / out)
    assert (tmp_path / "a.safetensors").read_bytes() == b""


def test_finding_tensors():
    tensor = torch.ones(2)
    for loaded, names in (
        (WEIGHTS, set(WEIGHTS)),
        ({"model": {"state_dict": {"a": tensor}}}, {"a"}),
        ({"model": {"_orig_mod.module.a": tensor, "_orig_mod.module.b": tensor}}, {"a", "b"}),
        ({"module.a": tensor, "b": tensor}, {"module.a", "b"}),
        ({"encoder": {"a": tensor}, "decoder": {"a": tensor}}, {"encoder.a", "decoder.a"}),
        ({"state_dict": {}, "model": {"a": tensor}}, {"a"}),
        ({"module.": tensor}, {"module."}),
        ([tensor], set()),
        (tensor, set()),
    ):
        assert set(find_tensors(loaded).tensors) == names, loaded
    assert set(find_tensors({"ema": {"model": {"a": tensor}}, "model": {"b": tensor}}, "ema.model").tensors) == {"a"}
    odd = find_tensors(
        {"a": tensor, "s": torch.eye(3).to_sparse(), "c": torch.zeros(2, dtype=torch.complex64), "n": [1]}
    )
    assert set(odd.tensors) == {"a"} and set(odd.dropped) == {"s", "c", "n"}
    deep = current = {}
    for _ in range(100):
        current["d"] = {}
        current = current["d"]
    current["a"] = tensor
    assert not find_tensors(deep).tensors
