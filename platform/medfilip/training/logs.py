"""Where the numbers of a run go: TensorBoard event files always, MLflow if it is asked for.

Both take numbers and settings, never a text of a report.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import Settings, operational
from medfilip.storage.location import Location

_RUN_TAG = "medfilip.run"
_LONGEST_PARAMETER = 500  # the limit of MLflow's servers
_PARAMETERS_AT_ONCE = 100  # so too
_FLUSH_S = 10.0


class MlflowSettings(Settings):
    """Where MLflow keeps the numbers, if it is to have them."""

    tracking_uri: str | None = operational(
        None, description="MLflow server or store that gets numbers and settings too; empty: none"
    )
    experiment: str = operational("medfilip", min_length=1, description="MLflow experiment")


class NumberLog(Protocol):
    """Takes the numbers of a run."""

    def write(self, step: int, metrics: Mapping[str, float], prefix: str) -> None:
        """Add numbers of a step under ``prefix/name``."""
        ...

    def flush(self) -> None:
        """Bring what was written to where it stays."""
        ...

    def close(self) -> None:
        """Flush and end."""
        ...


class EventLog:
    """Numbers as TensorBoard event files.

    A log that goes on after a restart writes a file of its own, which tells TensorBoard to forget what earlier files
    say of the steps that are done again.

    Parameters
    ----------
    folder
        Where the files go; created with the first number.
    mirror
        Copied to at every flush: storage that outlives this process and cannot be appended to.
    """

    def __init__(self, folder: Path, mirror: Location | None = None) -> None:
        self._folder, self._mirror = folder, mirror
        self._writer: Any = None
        self._suffix = f".{secrets.token_hex(4)}"
        self._flushed = time.monotonic()
        self._copied: dict[str, int] = {}

    def write(self, step: int, metrics: Mapping[str, float], prefix: str) -> None:
        """Add numbers of a step; a later write of the same step replaces an earlier one on the page."""
        from tensorboardX.proto import event_pb2, summary_pb2

        if self._writer is None:
            self._begin(step)
        values = [summary_pb2.Summary.Value(tag=f"{prefix}/{name}", simple_value=metrics[name]) for name in metrics]
        summary = summary_pb2.Summary(value=values)
        self._writer.write_event(event_pb2.Event(wall_time=time.time(), step=step, summary=summary))
        if time.monotonic() - self._flushed > _FLUSH_S:
            self._flush()

    def _begin(self, step: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        # Not its SummaryWriter: that writes in the background, and its flush leaves behind what is still in the queue.
        self._folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(self._folder / "events"), self._suffix)
        again = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._writer.write_event(event_pb2.Event(wall_time=time.time(), step=step, session_log=again))

    def _flush(self) -> None:
        self._writer.flush()
        self._flushed = time.monotonic()

    def flush(self) -> None:
        """Bring what was written to the disk, and to the mirror."""
        if self._writer is not None:
            self._flush()
            self._copy()

    def close(self) -> None:
        """End the files."""
        if self._writer is not None:
            self._writer.close()
            self._copy()
            self._writer = None
            self._suffix = f".{secrets.token_hex(4)}"

    def _copy(self) -> None:
        if self._mirror is None:
            return
        for file in sorted(self._folder.glob(f"*{self._suffix}")):
            data = file.read_bytes()
            if len(data) > self._copied.get(file.name, 0):
                (self._mirror / file.name).write_bytes(data)
                self._copied[file.name] = len(data)


class MlflowLog:
    """Numbers and settings in MLflow, in one MLflow run for each run of ours, however often it is resumed.

    Parameters
    ----------
    settings
        Where MLflow is.
    run
        Id of our run, by which its MLflow run is found again.
    parameters
        Settings of the run; nested ones are named with dots.

    Raises
    ------
    MedfilipError
        ``DEPENDENCY_MISSING`` without mlflow, ``STORAGE_FAILED`` if the run cannot be opened.
    """

    def __init__(self, settings: MlflowSettings, run: str, parameters: Mapping[str, Any]) -> None:
        require_mlflow()
        from mlflow import MlflowClient
        from mlflow.entities import Param
        from mlflow.exceptions import MlflowException

        self._pending: list[tuple[str, float, int, int]] = []
        self._failed = False
        try:
            self._client = MlflowClient(settings.tracking_uri)
            self._run = self._open(settings.experiment, run)
            found = [Param(name, str(value)[:_LONGEST_PARAMETER]) for name, value in _flat(parameters)]
            for at in range(0, len(found), _PARAMETERS_AT_ONCE):
                self._client.log_batch(self._run, params=found[at : at + _PARAMETERS_AT_ONCE])
        except (MlflowException, OSError) as error:
            raise MedfilipError(
                ErrorCode.STORAGE_FAILED,
                f"MLflow at 'mlflow.tracking_uri' cannot be written ({type(error).__name__}).",
                fix="Check address, network and credentials; if it is a folder, set MLFLOW_ALLOW_FILE_STORE=true.",
            ) from error

    def write(self, step: int, metrics: Mapping[str, float], prefix: str) -> None:
        """Note numbers of a step; they are sent with the next `flush`."""
        now = time.time_ns() // 1_000_000
        self._pending += [(f"{prefix}/{name}", float(value), now, step) for name, value in metrics.items()]

    def flush(self) -> None:
        """Send what was noted; a server that fails in mid-run costs its numbers, not the training."""
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        pending, self._pending = self._pending, []
        try:
            for at in range(0, len(pending), 1000):
                self._client.log_batch(self._run, metrics=[Metric(*item) for item in pending[at : at + 1000]])
        except (MlflowException, OSError) as error:
            if not self._failed:
                logging.getLogger(__name__).warning("MLflow takes no numbers now (%s).", type(error).__name__)
            self._failed = True

    def close(self) -> None:
        """Send what is left and mark the run as finished."""
        from mlflow.exceptions import MlflowException

        self.flush()
        try:
            self._client.set_terminated(self._run)
        except (MlflowException, OSError):
            self._failed = True

    def _open(self, experiment: str, run: str) -> str:
        found = self._client.get_experiment_by_name(experiment)
        name = found.experiment_id if found else self._client.create_experiment(experiment)
        earlier = self._client.search_runs([name], f"tags.`{_RUN_TAG}` = '{run}'", max_results=1)
        if earlier:
            return str(earlier[0].info.run_id)
        return str(self._client.create_run(name, tags={_RUN_TAG: run}, run_name=run).info.run_id)


class ManyLogs:
    """Writes to several logs."""

    def __init__(self, logs: Sequence[NumberLog]) -> None:
        self._logs = logs

    def write(self, step: int, metrics: Mapping[str, float], prefix: str) -> None:
        """Add numbers to all."""
        for log in self._logs:
            log.write(step, metrics, prefix)

    def flush(self) -> None:
        """Flush all."""
        for log in self._logs:
            log.flush()

    def close(self) -> None:
        """Close all."""
        for log in self._logs:
            log.close()


def require_mlflow() -> None:
    """Refuse a run that is to log to MLflow where it is not installed."""
    # Its client would tell its makers of every run.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    if find_spec("mlflow") is None:
        raise MedfilipError(
            ErrorCode.DEPENDENCY_MISSING,
            "The setting 'mlflow.tracking_uri' is given, but MLflow is not installed.",
            fix="Install it with: pip install 'medfilip[mlflow]', or leave the setting out.",
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
