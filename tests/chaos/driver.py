"""A driver under attack: ``medfilip extract`` as a process, the processes of its cluster, and how all of them end.

A run's processes are told by the folder for Ray's files in their environment, which no other run shares: only what was
started here is ever killed.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).parents[2]
START_LIMIT_S = 240.0
ENDED_BY_RAY = "ended_by_ray"
"""Stands for a code where Ray's own core ended the driver, past Python, as raylet or head of its cluster were gone."""

_CODE = re.compile(r"error\W+\[(\w+)\]")


@dataclass(frozen=True)
class Ended:
    """How a driver ended: its exit code (negative: the signal) and the error code it printed."""

    exit: int | None
    error: str | None
    message: str = ""


class RayFiles:
    """A folder for Ray's files, short enough for its sockets; it names the processes of one run."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="mfc", dir="/tmp")

    def processes(self) -> list[psutil.Process]:
        """Return the living processes whose environment names the folder."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("RAY_TMPDIR") == self.path and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def close(self) -> None:
        """End what still runs, by its id, and delete the folder."""
        deadline = time.monotonic() + 20
        while (left := self.processes()) and time.monotonic() < deadline:
            for process in left:
                kill(process)
            time.sleep(0.1)
        shutil.rmtree(self.path, ignore_errors=True)


def kill(process: psutil.Process) -> None:
    """SIGKILL a process; one that has gone already is no error."""
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


class Driver:
    """One start of a job."""

    def __init__(
        self, arguments: list[str], ray_files: RayFiles, log: Path, *, environment: dict[str, str], program: list[str]
    ) -> None:
        self._ray_files = ray_files
        self._log = log
        self._lost_ray = False
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *program, *arguments],
                env=driver_environment(ray_files) | environment,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )

    def is_running(self) -> bool:
        """Whether the driver has not ended yet."""
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL the driver alone; Ray's processes notice by themselves."""
        if self.is_running():
            os.kill(self.process.pid, signal.SIGKILL)

    def wait(self, limit_s: float = START_LIMIT_S) -> Ended:
        """Wait for the end; a driver that hangs is killed and has no exit code."""
        try:
            code: int | None = self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait()
            code = None
        text = self._log.read_text(encoding="utf-8", errors="replace")
        if told := _CODE.search(text):
            return Ended(code, told[1], " ".join(text[told.start() :].split()))
        return Ended(code, ENDED_BY_RAY if self._lost_ray and code == 1 else None, text[-2000:])

    def ray_processes(self) -> list[psutil.Process]:
        """Return the processes of the driver's cluster."""
        return [process for process in self._ray_files.processes() if process.pid != self.process.pid]

    def workers(self, title: str = "ray::") -> list[psutil.Process]:
        """Return the cluster's worker processes whose title begins so."""
        return [process for process in self.ray_processes() if _title(process).startswith(title)]

    def kill_worker(self, rng: random.Random, title: str = "ray::") -> bool:
        """SIGKILL a worker, a busy one if there is any; returns whether one was found."""
        workers = self.workers(title)
        busy = [process for process in workers if not _title(process).startswith("ray::IDLE")]
        if not workers:
            return False
        kill(rng.choice(busy or workers))
        return True

    def kill_raylet(self) -> bool:
        """SIGKILL the raylet; returns whether there was one."""
        raylets = [process for process in self.ray_processes() if "raylet/raylet" in _title(process)]
        self._lost_ray = True
        for process in raylets:
            kill(process)
        return bool(raylets)

    def kill_cluster(self) -> bool:
        """SIGKILL every process of the cluster but the driver."""
        self._lost_ray = True
        processes = self.ray_processes()
        for process in processes:
            kill(process)
        return bool(processes)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.Error, OSError):
        return ""


def driver_environment(ray_files: RayFiles) -> dict[str, str]:
    """Return the environment of a driver and, through it, of its cluster."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_"))},
        "PYTHONPATH": f"{REPOSITORY / 'platform'}:{REPOSITORY}",
        "MEDFILIP_PROJECT_KEY": "key-of-the-tests",
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": ray_files.path,
        # Ray ends a driver whose cluster's head is gone, after a minute unless told otherwise.
        "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
        "COLUMNS": "400",
        "NO_COLOR": "1",
    }
