"""Reads TensorBoard event files as TensorBoard does: file by file, and a restart takes later steps back."""

from __future__ import annotations

import struct
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog


def records(file):
    """Yield the events of a file: length, its checksum, data, its checksum."""
    data = file.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def numbers(folder):
    """Return (name, step) → value of a folder of event files."""
    found = {}
    for file in sorted(Path(folder).glob("events.*"), key=lambda file: file.stat().st_mtime_ns):
        for event in records(file):
            if event.session_log.status == SessionLog.START:
                found = {key: value for key, value in found.items() if key[1] < event.step}
            for value in event.summary.value:
                found[value.tag, event.step] = value.simple_value
    return found
