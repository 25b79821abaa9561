"""The rules the tree is built on: import directions, light imports, and a `platform/` that shadows nothing."""

from __future__ import annotations

import pkgutil
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import medfilip

REPOSITORY = Path(__file__).parents[2]


def test_platform_folder_never_shadows_the_standard_library() -> None:
    assert not (REPOSITORY / "platform" / "__init__.py").exists()
    assert platform.system()


def test_import_rules() -> None:
    result = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout


def _modules() -> list[str]:
    return [module.name for module in pkgutil.walk_packages(medfilip.__path__, "medfilip.")]


def test_every_module_loads_without_ray_and_vllm() -> None:
    # _decode_worker limits its own memory when run, not when imported, so it may be imported like any other.
    program = (
        "import sys, importlib\n"
        "sys.modules['ray'] = sys.modules['vllm'] = None\n"
        f"for name in {_modules()!r}: importlib.import_module(name)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("light", ["import medfilip", "import pipelines.cli"])
def test_light_imports_load_nothing_heavy(light: str) -> None:
    heavy = {"torch", "transformers", "sklearn", "matplotlib", "ray", "boto3"}
    program = f"import sys\n{light}\nprint(*{heavy!r} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not result.stdout.split()


def test_public_names_are_stated() -> None:
    for name in medfilip.__all__:
        assert getattr(medfilip, name) is not None


def test_every_module_says_why_it_exists() -> None:
    folders = [REPOSITORY / "platform" / "medfilip", REPOSITORY / "pipelines", REPOSITORY / "serve"]
    for file in [file for folder in folders for file in folder.rglob("*.py")]:
        lines = file.read_text(encoding="utf-8").splitlines()
        assert lines and lines[0].startswith('"""'), f"{file} has no docstring at its top"
        assert len(lines) <= 400, f"{file} has {len(lines)} lines"
