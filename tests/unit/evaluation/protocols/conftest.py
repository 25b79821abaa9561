"""Phantom corpora in the layout of each data set, written once; tests that change one get a copy."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from medfilip.evaluation.protocols.protocol import Protocol, load_protocol
from medfilip.evaluation.protocols.table import ProtocolTable, read_protocol
from medfilip.phantom.layouts.corpus import write_layout
from medfilip.phantom.layouts.names import LAYOUTS
from medfilip.phantom.study import StudyOptions
from medfilip.storage.location import Location

STUDIES, SEED = 40, 3
_PREVALENCE = {"chestxray14": 0.12, "vindr_cxr": 0.12, "padchest": 0.08}
"""Of each category, so that a layout with many has normal images too."""


def layout_options(layout: str) -> StudyOptions:
    return StudyOptions(size=64, prevalence=_PREVALENCE.get(layout, 0.3), lateral=0.5)


Read = Callable[..., ProtocolTable]
Edit = Callable[[Path, str, str], None]


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layouts")
    for layout in LAYOUTS:
        write_layout(root / layout, layout, STUDIES, SEED, options=layout_options(layout))
    return root


@pytest.fixture
def copy_of(corpora: Path, tmp_path: Path) -> Callable[[str], Path]:
    def copy(layout: str) -> Path:
        return Path(shutil.copytree(corpora / layout, tmp_path / layout))

    return copy


def undocumented(name: str) -> Protocol:
    """A protocol without documented counts: a phantom corpus is then complete."""
    return load_protocol(name).model_copy(update={"documented": ()})


@pytest.fixture
def read(corpora: Path) -> Read:
    """Read a corpus by its protocol, without the documented counts unless asked for."""

    def reader(name: str, folder: Path | None = None, **options: object) -> ProtocolTable:
        protocol = options.pop("protocol", None) or undocumented(name)
        return read_protocol(protocol, Location.parse(folder or corpora / name), **options)  # type: ignore[arg-type]

    return reader


@pytest.fixture
def edit() -> Edit:
    """Replace text in a file, which must hold it."""

    def replace(file: Path, old: str, new: str) -> None:
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")

    return replace
