"""The ``medfilip`` command within the process of a test: what a user reads, without another interpreter."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from unittest import mock

WIDTH = "100"


def medfilip_here(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a terminal of 100 columns; the environment and the streams are put back afterwards."""
    from pipelines.cli import app

    out, err, code = io.StringIO(), io.StringIO(), 0
    environment = {"COLUMNS": WIDTH, "NO_COLOR": "1"}
    with mock.patch.dict(os.environ, environment), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app(list(arguments), standalone_mode=True)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    assert sys.stdout is not out
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
