"""``medfilip submit``: run a job on a Ray cluster with exactly this code, follow its log, return its exit code."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import shlex
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from medfilip._version import __version__
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.ids import new_run_id
from medfilip.core.settings import Settings, load_settings
from pipelines.job import JOBS, code_files

_PROJECT = "medfilip"
_STOPPED_EXIT_CODE = 130
_READY_S = 60.0
_PATHS = (
    "root",
    "reports",
    "images",
    "findings",
    "pairs",
    "checkpoint",
    "phantom_truth",
    "unfamiliar",
    "exclude_ids",
    "data",
    "lock",
)


def submit_job(job: str, overrides: list[str], *, address: str, config: Path | None, new_run: bool) -> int:
    """Submit a job to the cluster behind a Ray dashboard and follow it to its end.

    Settings are checked here, before anything is sent, and travel resolved, so that the job sees what this machine's
    files and environment say. Secrets do not travel: the cluster has its own ``MEDFILIP_*`` secrets.

    Returns
    -------
    int
        The job's exit code: 0 if it succeeded, 130 if it was stopped.
    """
    if job not in JOBS:
        raise MedfilipError(ErrorCode.CONFIG_INVALID, f"There is no job '{job}'.", fix=f"One of: {', '.join(JOBS)}.")
    settings = load_settings(JOBS[job].load().SETTINGS, job, file=config, overrides=overrides)
    _check_paths(settings)
    entrypoint = ["python", "-m", "pipelines.cli", job, *flat_overrides(settings)]
    if new_run:
        entrypoint.append("--new-run")
    client = _client(address)
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        submission = _submit(client, job, shlex.join(entrypoint), wheel)
    sys.stdout.write(f"submitted {submission} to {address}\n")
    return _follow(client, submission)


def _submit(client: Any, job: str, entrypoint: str, wheel: Path) -> str:
    """Submit, waiting for a cluster that has just started to be ready for jobs."""
    submission = f"{_PROJECT}-{job}-{new_run_id()}"
    environment = {"py_modules": [str(wheel)], "env_vars": {"RAY_USAGE_STATS_ENABLED": "0"}}
    deadline = time.monotonic() + _READY_S
    while True:
        try:
            client.submit_job(
                entrypoint=entrypoint, submission_id=submission, runtime_env=environment, metadata={"job": job}
            )
        except RuntimeError as error:
            # The dashboard answers before the agent that starts jobs does.
            if "agent" in str(error) and time.monotonic() < deadline:
                time.sleep(1.0)
                continue
            raise MedfilipError(
                ErrorCode.JOB_FAILED,
                "The cluster did not accept the job.",
                fix="Look at the dashboard's log on the head node, and try again; --debug shows the cluster's answer.",
            ) from error
        return submission


def flat_overrides(settings: Settings, prefix: str = "") -> list[str]:
    """Return ``key=value`` for every setting: what the cluster's own files and environment say must not matter."""
    values = settings.model_dump(mode="json")
    flat: list[str] = []
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Settings):
            flat += flat_overrides(value, f"{prefix}{name}.")
        else:
            flat.append(f"{prefix}{name}={json.dumps(values[name])}")
    return flat


def build_wheel(folder: Path) -> Path:
    """Write the code that is running here as a wheel, whether it is installed or a checkout.

    The wheel states no requirements: Ray installs it with pip, which would fetch torch and all the rest for every job,
    while the cluster's image has them. Its version ends in a hash of its content: Ray names an upload by its file name
    alone and would run yesterday's code under an unchanged one.
    """
    contents = dict(sorted(code_files()))
    digest = hashlib.sha256()
    for name, data in contents.items():
        digest.update(name.encode() + b"\0" + data)
    version = f"{__version__}+{digest.hexdigest()[:12]}"
    info = f"{_PROJECT}-{version}.dist-info"
    contents[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {_PROJECT}\nVersion: {version}\n".encode()
    contents[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: medfilip\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{name},sha256={_record_hash(data)},{len(data)}\n" for name, data in contents.items())
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    wheel = folder / f"{_PROJECT}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return wheel


def _record_hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _check_paths(settings: Settings) -> None:
    """Refuse relative paths: on the cluster they would lie in a folder that Ray deletes with the job."""
    for name in _PATHS:
        given = getattr(settings, name, None)
        # Empty stands for what the package brings.
        if isinstance(given, str) and given and "://" not in given and not given.startswith(("/", "~")):
            raise MedfilipError(
                ErrorCode.CONFIG_INVALID,
                f"The setting '{name}' is '{given}', which is relative to a folder the cluster deletes after the job.",
                fix=f"Give {name}=s3://bucket/prefix, or an absolute path that all nodes share.",
            )


def _client(address: str) -> Any:
    try:
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise MedfilipError(
            ErrorCode.DEPENDENCY_MISSING, "Ray is not installed.", fix="Install it with: pip install 'medfilip[ray]'."
        ) from error
    try:
        return JobSubmissionClient(address)
    except AuthenticationError as error:
        raise MedfilipError(
            ErrorCode.UNAUTHENTICATED,
            f"The cluster at {address} refused the token.",
            fix="Set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the cluster's token.",
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise MedfilipError(
            ErrorCode.CLUSTER_UNREACHABLE,
            f"There is no Ray dashboard at {address}.",
            fix="Check --address (http://HEAD:8265) and that the cluster's dashboard is on.",
        ) from error


def _follow(client: Any, submission: str) -> int:
    async def tail() -> None:
        async for lines in client.tail_job_logs(submission):
            sys.stdout.write(lines)
            sys.stdout.flush()

    try:
        asyncio.run(tail())
    except KeyboardInterrupt:
        sys.stdout.write(f"\n{submission} goes on; stop it with: ray job stop {submission}\n")
        return _STOPPED_EXIT_CODE
    info = client.get_job_info(submission)
    status = str(getattr(info.status, "value", info.status))
    sys.stdout.write(f"{submission} {status.lower()}\n")
    if status == "SUCCEEDED":
        return 0
    if status == "STOPPED":
        return _STOPPED_EXIT_CODE
    return int(info.driver_exit_code or 1)
