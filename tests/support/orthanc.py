"""A real archive for tests: Orthanc with its DICOMweb plug-in, in a folder of its own, behind a password."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_STARTING_S = 60


@dataclass(frozen=True)
class Orthanc:
    """A running archive: its own REST interface, and its DICOMweb."""

    url: str
    user: str
    password: str

    @property
    def dicom_web(self) -> str:
        return f"{self.url}/dicom-web"

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}/{path}", auth=(self.user, self.password), trust_env=False)

    def post(self, path: str, content: bytes) -> httpx.Response:
        return httpx.post(f"{self.url}/{path}", content=content, auth=(self.user, self.password), trust_env=False)


@contextmanager
def running_orthanc(program: str, folder: Path) -> Iterator[Orthanc]:
    """Start an archive, and end it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    archive = Orthanc(f"http://127.0.0.1:{port}", "tester", "secret-of-the-tests")
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {archive.user: archive.password},
        "DicomServerEnabled": False,
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False},
    }
    file = folder / "orthanc.json"
    file.write_text(json.dumps(settings), encoding="utf-8")
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen([program, str(file)], stdout=log, stderr=log)
        try:
            _wait(archive, process, folder / "orthanc.log")
            yield archive
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(archive: Orthanc, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _STARTING_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if archive.get("system").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError(f"Orthanc did not start:\n{log.read_text(errors='replace')[-2000:]}")
