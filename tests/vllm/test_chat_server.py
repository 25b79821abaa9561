"""The openai engine against vLLM's own OpenAI-compatible server, with random weights on this machine's CPU."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from medfilip.core.errors import ErrorCode
from medfilip.extraction.chat_client import ChatEndpoint
from medfilip.extraction.chat_engine import ChatEngine
from medfilip.extraction.engine import OK
from medfilip.extraction.prompt import load_prompt
from medfilip.extraction.reply import ReplyReader
from medfilip.extraction.tiny_llm import make_tiny_llm
from medfilip.findings.ontology import load_ontology

START_S = 240
KEY = "key-of-the-tests"


@pytest.fixture
def vllm_server(tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("vllm")
    model = make_tiny_llm(tmp_path / "llm")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model),
        "--served-model-name", "tiny",
        "--host", "127.0.0.1", "--port", str(port), "--max-model-len", "2048", "--enforce-eager", "--api-key", KEY,
        "--enable-prompt-tokens-details",
    ]  # fmt: skip
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    log = (tmp_path / "server.log").open("wb")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    deadline = time.monotonic() + START_S
    try:
        while time.monotonic() < deadline:
            assert process.poll() is None, (tmp_path / "server.log").read_text()[-3000:]
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            except httpx.TransportError:
                time.sleep(0.5)
        else:
            pytest.fail("the server did not start")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)
        log.close()


@pytest.mark.timeout(400)
def test_a_real_server_takes_our_requests_and_counts_tokens(vllm_server: str) -> None:
    engine = ChatEngine(
        ChatEndpoint(vllm_server, "tiny", timeout_s=120),
        load_prompt(),
        ReplyReader(load_ontology()),
        api_key=KEY,
        concurrency=4,
        max_tokens=48,
    )
    sentences = ["small left pleural effusion", "no pneumothorax", "the heart is enlarged", "clear lungs"]
    results = engine.extract_many(sentences, [None] * 3 + ["no pneumothorax"])
    assert {result.status for result in results} <= {OK, ErrorCode.REPLY_TRUNCATED, ErrorCode.REPLY_INVALID}
    for result in results:
        assert result.input_tokens and result.input_tokens > 100
        assert result.output_tokens and 0 < result.output_tokens <= 48
        assert result.raw_reply is None or result.raw_reply.lstrip().startswith("{"), "decoding followed our schema"
    again = engine.extract_many(sentences[:1], [None])[0]
    assert again.cached_tokens and again.cached_tokens > 100, "the shared prefix was cached"
