"""Settings of fine-tuning that do not fit are told; the table fits a terminal."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import load_settings
from medfilip.transfer.settings import TuneSettings
from pipelines import finetune
from pipelines.finetune import FinetuneSettings
from pipelines.finetune_data import MaskPlace
from pipelines.finetune_table import print_table
from pipelines.ray_finetune import TuneTask

GIVEN = ("checkpoint=c", "images=i", "findings=f")


def settings(*overrides: str, given: tuple[str, ...] = GIVEN) -> FinetuneSettings:
    return load_settings(FinetuneSettings, "finetune", overrides=[*given, *overrides], environment={})


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("fractions=[0.1,0]",), "above 0 and at most 1"),
        (("fractions=[1.5]",), "above 0 and at most 1"),
        (("fractions=[]",), "fractions"),
        (("seeds=[0,0]",), "given twice"),
        (("seeds=[-1]",), "at least 0"),
        (("modes=[probe,zero]",), "modes"),
        (("inits=[imagenet]",), "needs init_from"),
        (("inits=[checkpoint]", "init_from=x"), "has no imagenet"),
        (("modes=segment",), "needs the masks of phantom_truth"),
        (("protocol=siim_acr",), "protocol and data go together"),
        (("protocol=siim_acr", "data=d"), "brings its own images"),
        (("workers=2", "min_workers=3"), "min_workers=3 is above workers=2"),
        (("tune.augment.flip=0.5",), "heart on the other side"),
        (("probe.strengths=[0]",), "above 0"),
        (("tune.steps=0",), "tune.steps"),
    ],
)
def test_what_does_not_fit_is_told(overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(MedfilipError, match=told) as caught:
        settings(*overrides)
    assert caught.value.code is ErrorCode.CONFIG_INVALID


def test_labels_must_come_from_somewhere() -> None:
    with pytest.raises(MedfilipError, match="give one of them"):
        settings(given=GIVEN[:2])


def test_a_protocol_stands_in_place_of_images_and_masks_are_those_of_one() -> None:
    given = ("checkpoint=c", "protocol=siim_acr", "data=d")
    assert settings("modes=[probe,segment]", given=given).images is None
    with pytest.raises(MedfilipError, match="siim_acr alone has masks, of pneumothorax"):
        settings("modes=segment", "segment=mass", given=given)
    with pytest.raises(MedfilipError, match="siim_acr alone has masks"):
        settings("modes=segment", given=("checkpoint=c", "protocol=rsna", "data=d"))
    with pytest.raises(MedfilipError, match="give images, or protocol and data"):
        settings(given=("checkpoint=c",))
    places = ("checkpoint=c", "protocol=siim_acr", "data=e")
    assert settings(given=places).semantic()["protocol"] == "siim_acr"
    assert settings("lock=x", "expected_split=y", given=given).semantic() == settings(given=given).semantic()


def test_the_grid_has_every_cell_once_and_no_init_without_weights() -> None:
    found = settings("modes=[full,segment]", "phantom_truth=p", "seeds=[0,1]", "fractions=[1,0.1]")
    cells = found.cells("probe", "full", "segment")
    assert len({cell.name for cell in cells}) == len(cells) == 2 * 2 * 2 * 2
    assert {cell.init for cell in cells} == {"checkpoint", "random"} and not found.cells("probe")
    assert {cell.init for cell in settings("init_from=m").cells("full")} == {"checkpoint", "random", "imagenet"}


def test_one_value_is_a_list_of_one() -> None:
    found = settings("modes=probe", "fractions=0.1", "seeds=3", "labels=nodule", "inits=random")
    assert (found.modes, found.fractions, found.seeds) == (("probe",), (0.1,), (3,))
    assert (found.labels, found.inits) == (("nodule",), ("random",))


def test_where_and_how_it_runs_does_not_name_the_run() -> None:
    plain = settings()
    for override in ("workers=4", "gpus=false", "storage=/x", "quiet=true", "tune.image_cache_mb=9"):
        assert settings(override).semantic() == plain.semantic()
    assert settings("tune.steps=9").semantic() != plain.semantic()


def test_a_task_travels_as_json() -> None:
    task = TuneTask(
        run="r", staging="s", images="i", checkpoint="c", init_from=None,
        masks=MaskPlace(of="phantom", folder="f"), category="nodule",
        cells=tuple(settings().cells("full")), tune=TuneSettings(steps=3), synthetic=True,
    )  # fmt: skip
    assert TuneTask.model_validate(task.model_dump(mode="json")) == task


def row(mode: str, init: str, fraction: float, value: float) -> dict[str, Any]:
    interval = {"value": value, "low": value - 0.1, "high": value + 0.1}
    return {
        "mode": mode, "init": init, "fraction": fraction, "value": interval,
        "runs": [{"images": round(2000 * fraction)}],
        "dice_all": interval if mode == "segment" else None, "over_random": interval if init != "random" else None,
    }  # fmt: skip


def test_the_table_fits_a_terminal_and_says_what_is_absent() -> None:
    rows = [
        row(mode, init, fraction, 0.5)
        for mode in ("probe", "full", "segment")
        for init in ("checkpoint", "random")
        for fraction in (0.01, 0.1, 1.0)
    ]
    rows[0]["value"] = {"value": 0.25, "low": None, "high": None}
    text = io.StringIO()
    absent = [{"init": "imagenet", "reason": "no weights were given"}]
    print_table({"rows": rows, "absent": absent}, Console(file=text, width=80, highlight=False))
    lines = text.getvalue().splitlines()
    assert max(len(line) for line in lines) <= 80
    assert "imagenet not measured: no weights were given" in lines
    assert re.search(r"1 % \(20\) +10 % \(200\) +100 % \(2,000\)", text.getvalue())
    assert re.search(r"checkpoint +\.250 +\.500 \[\.400, \.600\]", text.getvalue())
    assert text.getvalue().count("+.500 [+.400, +.600]") == 9


def test_segmentation_without_monai_is_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune, "find_spec", lambda _: None)
    with pytest.raises(MedfilipError, match="needs the package 'monai'") as caught:
        finetune.run(settings("modes=segment", "phantom_truth=p"))
    assert caught.value.code is ErrorCode.DEPENDENCY_MISSING


@pytest.mark.parametrize(("override", "told"), [("labels=[pnumothorax]", "labels"), ("segment=ptx", "segment")])
def test_categories_that_are_none_are_told(override: str, told: str) -> None:
    with pytest.raises(MedfilipError, match=told) as caught:
        finetune.run(settings(override))
    assert caught.value.code is ErrorCode.CONFIG_INVALID
