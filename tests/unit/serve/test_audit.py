"""The audit log: complete before an answer leaves, and no line can be changed, left out or put in unnoticed."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_bytes
from serve.audit import AuditLog, verify
from serve.gateway import Gateway
from serve.guard import Auditor
from serve.keys import KeyRing, hash_key
from serve.settings import ServeSettings
from serve.web import http_app
from tests.unit.serve.conftest import KEY


def write(folder: Path, count: int = 3, *, close: bool = True) -> Path:
    log = AuditLog(folder, "w")
    for number in range(count):
        log.write({"request_id": f"r{number}"})
    if close:
        log.close()
    return max(folder.glob("*.jsonl"))


def test_a_whole_log_is_sound(tmp_path: Path) -> None:
    file = write(tmp_path)
    write(tmp_path, 2, close=False)
    sound, still_open = verify(tmp_path)
    assert (sound.state, sound.requests, sound.problem) == ("sound", 3, None)
    assert (still_open.state, still_open.requests) == ("open", 2)
    assert sound.head == json.loads(file.read_text().splitlines()[-1])["hash"]
    assert file.stat().st_mode & 0o007 == 0


def changed(line: bytes) -> bytes:
    return line.replace(b'"r1"', b'"r9"')


def rehashed(line: bytes) -> bytes:
    """Change a line and its own hash with it, as somebody without the key could."""
    from serve.audit import _hash

    entry = json.loads(changed(line))
    return json.dumps({**entry, "hash": _hash(entry, None)}).encode() + b"\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: [*lines[:2], changed(lines[2]), *lines[3:]], "line 3 was changed"),
        (lambda lines: [*lines[:2], rehashed(lines[2]), *lines[3:]], "line 4 does not follow"),
        (lambda lines: [*lines[:2], *lines[3:]], "line 3 does not follow"),
        (lambda lines: [*lines[:2], lines[2], lines[2], *lines[3:]], "line 4 does not follow"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "line 2 does not follow"),
        (lambda lines: lines[1:], "line 1 does not follow"),
        (lambda lines: [*lines, lines[-1]], "line 6 does not follow"),
        (lambda lines: [*lines[:-1], lines[-1][:-20]], "line 5 is no entry"),
        (lambda lines: [*lines, b"[]\n"], "line 6 is no entry"),
        (lambda lines: [], "empty"),
    ],
)
def test_every_change_breaks_the_chain(
    tmp_path: Path, change: Callable[[list[bytes]], list[bytes]], words: str
) -> None:
    file = write(tmp_path)
    file.write_bytes(b"".join(change(file.read_bytes().splitlines(keepends=True))))
    [chain] = verify(tmp_path)
    assert chain.state == "broken" and words in (chain.problem or "")


def test_a_cut_end_leaves_it_open(tmp_path: Path) -> None:
    file = write(tmp_path)
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-2]))
    [chain] = verify(tmp_path)
    assert (chain.state, chain.requests) == ("open", 2)


def test_a_key_makes_a_chain_that_nobody_else_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "plain")
    monkeypatch.setenv("MEDFILIP_AUDIT_KEY", "one key")
    write(tmp_path / "keyed")
    assert verify(tmp_path / "keyed")[0].state == "sound"
    [plain] = verify(tmp_path / "plain")
    assert plain.state == "broken" and "without the key" in (plain.problem or "")
    monkeypatch.setenv("MEDFILIP_AUDIT_KEY", "another key")
    assert verify(tmp_path / "keyed")[0].problem == "line 1 was changed"
    monkeypatch.delenv("MEDFILIP_AUDIT_KEY")
    with pytest.raises(MedfilipError, match="MEDFILIP_AUDIT_KEY") as caught:
        verify(tmp_path / "keyed")
    assert caught.value.code == ErrorCode.SECRET_MISSING
    with pytest.raises(MedfilipError) as caught:
        verify(tmp_path / "nothing")
    assert caught.value.code == ErrorCode.INPUT_NOT_FOUND


@pytest.fixture
def audited(backend: object, settings: ServeSettings, tmp_path: Path) -> Iterator[TestClient]:
    auditor = Auditor(tmp_path, "test")
    app = http_app(Gateway(backend, settings), KeyRing([hash_key(KEY)]), settings, auditor=auditor)  # type: ignore[arg-type]
    yield TestClient(app, headers={"X-API-Key": KEY})
    auditor.close()


def test_what_is_answered_is_recorded_and_nothing_else_of_it(
    audited: TestClient, tmp_path: Path, phantom_dicom: bytes
) -> None:
    label = "canary of a label"
    good = audited.post("/v1/diagnose", files={"file": phantom_dicom}, data={"labels": [label]})
    bad = audited.post("/v1/diagnose", files={"file": b"canary of a file"})
    wrong = audited.post("/v1/embed", files={"file": phantom_dicom}, headers={"X-API-Key": "canary of a key"})
    audited.get("/v1/model")
    [file] = tmp_path.glob("*.jsonl")
    _, *lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["action"], line["status"], line["code"]) for line in lines] == [
        ("diagnose", 200, None), ("diagnose", 422, "image_unsupported"), ("embed", 403, "forbidden"),
    ]  # fmt: skip
    answers = [good, bad, wrong]
    assert [line["output"] for line in lines] == [sha256_bytes(answer.content) for answer in answers]
    assert [line["request_id"] for line in lines] == [answer.headers["x-request-id"] for answer in answers]
    assert (
        lines[0]["inputs"] == [sha256_bytes(phantom_dicom)] and lines[0]["model"] == good.json()["model"]["fingerprint"]
    )
    assert lines[0]["caller"] == lines[1]["caller"] == f"key-{hash_key(KEY)[:8]}" and lines[2]["caller"] is None
    assert "canary" not in file.read_text() and KEY not in file.read_text()
    assert verify(tmp_path)[0].state == "open"


def test_nothing_is_answered_that_was_not_recorded(
    audited: TestClient, phantom_dicom: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write = os.write

    def full(file: int, data: bytes) -> int:
        return write(file, data[:20])  # as a disk does that has room for that much

    monkeypatch.setattr("serve.audit.os.write", full)
    answer = audited.post("/v1/diagnose", files={"file": phantom_dicom})
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "audit_failed"
    assert "findings" not in answer.text and int(answer.headers["retry-after"]) > 0
    monkeypatch.undo()
    assert [chain.state for chain in verify(tmp_path)] == ["open"]
    assert audited.post("/v1/diagnose", files={"file": phantom_dicom}).status_code == 200


def test_a_way_behind_a_prefix_is_recorded_too(
    backend: object, settings: ServeSettings, tmp_path: Path, phantom_dicom: bytes
) -> None:
    auditor = Auditor(tmp_path, "test")
    app = http_app(Gateway(backend, settings), KeyRing([]), settings, auditor=auditor)  # type: ignore[arg-type]
    assert (
        TestClient(app, root_path="/xray").post("/xray/v1/diagnose", files={"file": phantom_dicom}).status_code == 200
    )
    auditor.close()
    assert [chain.requests for chain in verify(tmp_path)] == [1]


def test_strangers_cannot_fill_the_disk(audited: TestClient, tmp_path: Path) -> None:
    for _ in range(70):
        assert audited.post("/v1/diagnose", headers={"X-API-Key": "wrong"}).status_code == 403
    assert [chain.requests for chain in verify(tmp_path)] == [60]


def test_letters_that_cannot_be_encoded_break_one_chain_alone(tmp_path: Path) -> None:
    file = write(tmp_path)
    write(tmp_path)
    file.write_bytes(file.read_bytes().replace(b'"r1"', b'"\\ud800"'))
    assert [chain.state for chain in verify(tmp_path)] == ["broken", "sound"]


def test_who_leaves_before_the_answer_is_on_record(
    backend: object, settings: ServeSettings, tmp_path: Path, phantom_dicom: bytes
) -> None:
    class Slow(type(backend)):  # type: ignore[misc]
        async def decode(self, data: bytes, image_size: int, preview: bool) -> object:
            await asyncio.sleep(60)

    auditor = Auditor(tmp_path, "test")
    parts = backend.decoder, backend.encoder  # type: ignore[attr-defined]
    app = http_app(Gateway(Slow(*parts), settings), KeyRing([]), settings, auditor=auditor)

    async def leave() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://endpoint") as client:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.post("/v1/diagnose", files={"file": phantom_dicom}), 0.5)

    asyncio.run(leave())
    auditor.close()
    [file] = tmp_path.glob("*.jsonl")
    line = json.loads(file.read_text().splitlines()[1])
    assert line["code"] == "client_disconnected" and line["inputs"] == [sha256_bytes(phantom_dicom)]
