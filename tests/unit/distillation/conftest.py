"""A micro set and the settings of a micro student: a few thousand weights, a few steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from medfilip.distillation.dataset import Row
from medfilip.distillation.make import make_rows
from medfilip.distillation.row_file import write_rows
from medfilip.distillation.settings import DistillSettings
from medfilip.distillation.student import StudentSettings


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    return make_rows(1_500, seed=7)[0]


@pytest.fixture(scope="session")
def data(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("set") / "set.parquet"
    write_rows(rows, file, {"synthetic": "true", "counts": '{"kept": 1}'})
    return file


@pytest.fixture(scope="session")
def settings() -> DistillSettings:
    shape = StudentSettings(vocabulary=512, hidden_size=64, layers=1, heads=2, intermediate_size=96)
    return DistillSettings(
        student=shape, epochs=1, max_steps=6, batch_tokens=512, report_steps=3, state_steps=2,
        learning_rate=5e-3, validation_rows=8, exact_rows=2,
    )  # fmt: skip
