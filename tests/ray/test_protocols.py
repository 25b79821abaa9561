"""Evaluation protocols end to end on Ray: phantoms in seven layouts, an untrained model, and what must not pass."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.protocols.protocol import load_protocol, protocol_names
from medfilip.evaluation.protocols.table import read_protocol
from medfilip.phantom.layouts.corpus import write_layout
from medfilip.storage.location import Location
from medfilip.storage.shards import read_dataset
from tests.ray.conftest import Ran, run_job
from tests.unit.evaluation.protocols.conftest import SEED, STUDIES, layout_options


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layouts")
    for name in protocol_names():
        write_layout(root / name, name, STUDIES, SEED, options=layout_options(name))
    return root


def evaluate(name: str, data: Path, checkpoint: Path, root: Path, *settings: str) -> Ran:
    given = (f"protocol={name}", f"data={data}", f"checkpoint={checkpoint}", f"root={root}", "resamples=20")
    return Ran.of(run_job("evaluate_protocol", *given, *settings))


@pytest.mark.parametrize("name", protocol_names())
def test_every_protocol_runs_on_its_layout(
    name: str, ray_cluster: None, layouts: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    lock = tmp_path / "lock.json"
    ran = evaluate(name, layouts / name, tiny_checkpoint, tmp_path, "allow_partial=true", f"lock={lock}")
    table = read_protocol(load_protocol(name), Location.parse(layouts / name), allow_partial=True)
    numbers = json.loads((ran.location / "report.json").read_bytes())
    record = json.loads((ran.location / "protocol.json").read_bytes())
    assert numbers["synthetic"], "phantoms are told, whatever the model says of itself"
    assert numbers["facts"]["completeness"].startswith("PARTIAL") and "phantoms" in numbers["facts"]["data"]
    assert numbers["facts"]["split fingerprint"] == record["record"]["split_fingerprint"]
    assert ran.manifest.counts["partial"] == 1 and not ran.manifest.rejected
    assert ran.manifest.counts["test_images"] == len(table.rows("test")) == numbers["diagnosis"]["zero_shot"]["images"]
    test_NL = table.truth_NL[table.rows("test")]
    for at, label in enumerate(numbers["diagnosis"]["zero_shot"]["labels"]):
        assert label["label"] == table.protocol.categories[at]
        assert (label["positives"], label["negatives"]) == ((test_NL[:, at] == 1).sum(), (test_NL[:, at] == 0).sum())
        assert ("pnc_auroc" not in label["metrics"]) == (label["positives"] == 0 or label["negatives"] == 0)
    assert any("pnc_auroc" in label["metrics"] for label in numbers["diagnosis"]["zero_shot"]["labels"])
    check_parts(name, numbers["diagnosis"])
    card = (ran.location / "model_card.md").read_bytes().decode()
    assert f"Truth: the labels of {table.protocol.title}" in card and "Not measured: heat maps" in card
    page = (ran.location / "report.html").read_bytes().decode()
    assert "Wording of the prompts" in page and "heat maps: the protocol reads no boxes" in page
    assert "Synthetic data" in page and "not pinned" in page
    assert not re.search(r"(?:src|href)=[\"'](?!#)|url\((?![\"']?#)|@import", page)
    assert json.loads(lock.read_text())["split_fingerprint"] == record["record"]["split_fingerprint"]
    again = run_job(
        "evaluate_protocol", f"protocol={name}", f"data={layouts / name}", f"checkpoint={tiny_checkpoint}",
        f"root={tmp_path}", "resamples=20", "allow_partial=true", f"lock={lock}",
    )  # fmt: skip
    assert again.already_finished and again.location == str(ran.location)


def check_parts(name: str, diagnosis: dict[str, Any]) -> None:
    """A protocol's page has what any other has, and says what its labels do not allow."""
    assert diagnosis["robustness"]["styles"] and not diagnosis["fine_grained"]
    assert {"fine_grained", "heat_maps"} <= set(diagnosis["not_measured"])
    several = load_protocol(name).task == "multi_label"
    assert bool(diagnosis["retrieval"]) == several == ("retrieval" not in diagnosis["not_measured"])
    assert bool(diagnosis["subgroups"]) == ("subgroups" not in diagnosis["not_measured"])


def _numbers(value: Any) -> list[float]:
    """Return all numbers of a JSON value, in their order."""
    if isinstance(value, dict):
        return [number for item in value.values() for number in _numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    return [float(value)] if isinstance(value, int | float) else []


def test_many_parts_give_the_numbers_of_one(
    ray_cluster: None, layouts: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def numbers(root: Path) -> list[dict[str, Any]]:
        ran = evaluate("chexpert5", layouts / "chexpert5", tiny_checkpoint, root, "allow_partial=true")
        found = json.loads((ran.location / "report.json").read_bytes())["diagnosis"]["zero_shot"]
        labels: list[dict[str, Any]] = found["labels"]
        return labels

    one = numbers(tmp_path / "one")
    monkeypatch.setattr("pipelines.protocol_images.IMAGES_PER_PART", 7)
    for first, second in zip(one, numbers(tmp_path / "many"), strict=True):
        # The size of a batch changes the last digits of an embedding, and so those of a probability.
        assert _numbers(first) == pytest.approx(_numbers(second), abs=1e-5)
        assert first["label"] == second["label"] and first["metrics"].keys() == second["metrics"].keys()


def test_images_that_cannot_be_read_are_told_not_dropped(
    ray_cluster: None, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    write_layout(data, "chestxray14", STUDIES, SEED, options=layout_options("chestxray14"))
    names = (data / "test_list.txt").read_text().split()
    broken, coloured = (next(data.rglob(name)) for name in names[:2])
    broken.write_bytes(broken.read_bytes()[:200])
    from PIL import Image

    Image.new("RGB", (64, 64), (200, 30, 30)).save(coloured)
    ran = evaluate("chestxray14", data, tiny_checkpoint, tmp_path, "allow_partial=true")
    assert ran.manifest.rejected == {ErrorCode.IMAGE_UNDECODABLE: 1, ErrorCode.IMAGE_UNSUPPORTED: 1}
    rows = read_dataset(ran.location, ran.manifest, "rejected").to_pylist()
    assert {row["id"] for row in rows} == {broken.name, coloured.name}
    assert ran.manifest.counts["test_images"] == len(names) - 2
    facts = json.loads((ran.location / "report.json").read_bytes())["facts"]
    assert "2 images could not be read" in facts["completeness"] and "image_undecodable" in facts["left out"]


def test_a_wrong_split_never_reaches_the_model(
    ray_cluster: None, layouts: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    data, lock = layouts / "siim_acr", tmp_path / "lock.json"

    def refused(*settings: str) -> ErrorCode:
        with pytest.raises(MedfilipError) as caught:
            evaluate("siim_acr", data, tiny_checkpoint, tmp_path, *settings)
        return caught.value.code

    assert refused() == ErrorCode.DATA_INCOMPLETE
    assert refused("allow_partial=true", "expected_split=no-such-split") == ErrorCode.SPLIT_MISMATCH
    other = read_protocol_of(layouts, "rsna")
    lock.write_text(other)
    assert refused("allow_partial=true", f"lock={lock}") == ErrorCode.SPLIT_MISMATCH
    assert not [child for child in Location.parse(tmp_path).children() if child.name.startswith("evaluate_protocol")]


def read_protocol_of(layouts: Path, name: str) -> str:
    table = read_protocol(load_protocol(name), Location.parse(layouts / name), allow_partial=True)
    return table.record.model_dump_json()
