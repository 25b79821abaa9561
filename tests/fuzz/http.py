"""Mutated requests: whatever is sent, the endpoint answers with a contract of its own, and never fails inside.

    python -m tests.fuzz.http --count 10000 --seed 1

Images come damaged as in `tests.fuzz.mutation`, in whole forms; forms come damaged themselves; fields come with what
nobody should send. The application runs in this process on its real parts with an untrained model.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fastapi.testclient import TestClient

from medfilip.answers import Diagnosis, ErrorAnswer
from medfilip.core.errors import ErrorCode
from medfilip.findings.ontology import load_ontology
from medfilip.knowledge.knowledge import load_knowledge
from medfilip.model.checkpoint import Versions, save_checkpoint
from medfilip.model.config import ModelConfig
from medfilip.model.dual_encoder import DualEncoder
from medfilip.model.tokenizer import Tokenizer
from serve.decoding import DecoderService
from serve.encoding import EncoderService
from serve.gateway import Gateway
from serve.keys import KeyRing
from serve.settings import ServeSettings
from serve.web import http_app
from tests.fuzz.judge import LIMITS
from tests.fuzz.mutation import Recipe, bases, mutate
from tests.unit.serve.conftest import InProcess

BOUNDARY = "q7x"
CANARY = "CANARY"
_TEXTS = (
    "nodule", "no mass", "", " ", "\x00", "\u202eabc", "💉" * 70, "a" * 500, "x: y; z", ":", ";;;", "nan", "-1",
    "1e309", "0.5", "2", "true", "all", "present", "youden", "../../etc/passwd", "<script>", "' OR 1=1",
    f"{CANARY} label", "\ud800", "1.2.3", "https://example.org/dicom-web",
)  # fmt: skip
_FIELDS = (
    "labels", "described", "operating_point", "threshold", "attributes", "heat_maps", "preview", "study", "archive",
    "store", "file", "texts", CANARY,
)  # fmt: skip
_TYPES = ("application/dicom", "image/png", "image/jpeg", "application/octet-stream", "text/html", "", "\xff")
_ACCEPTS = ("*/*", "application/fhir+json", "application/dicom", "multipart/related", "text/html", "x;q=y,,;")


@dataclass(frozen=True)
class Sent:
    """A request."""

    path: str
    body: bytes
    headers: dict[bytes, bytes]


def make(seed: int) -> Sent:
    """Make a request: a pure function of its seed."""
    rng = np.random.default_rng(seed)

    def pick(values: tuple[str, ...]) -> str:
        return values[int(rng.integers(len(values)))]

    image = Recipe(pick(tuple(bases())), tuple(int(rng.integers(2**31)) for _ in range(int(rng.integers(4))))).make()
    path = "/v1/embed" if rng.random() < 0.1 else "/v1/diagnose"
    headers = {b"accept": pick(_ACCEPTS).encode()} if rng.random() < 0.3 else {}
    if rng.random() < 0.15:
        return Sent(path, image, headers | {b"content-type": pick(_TYPES).encode("latin-1")})
    parts = [_part(pick(_FIELDS), pick(_TEXTS)) for _ in range(int(rng.integers(5)))]
    parts += [_file(image)] * int(rng.choice([0, 1, 1, 1, 2, 6]))
    body = b"".join(parts[at] for at in rng.permutation(len(parts))) + f"--{BOUNDARY}--\r\n".encode()
    if rng.random() < 0.3:
        body = mutate(body, int(rng.integers(2**31)))
    return Sent(path, body, headers | {b"content-type": f"multipart/form-data; boundary={BOUNDARY}".encode()})


def _part(name: str, text: str) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
    return head.encode() + text.encode("utf-8", "surrogatepass") + b"\r\n"


def _file(data: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{CANARY}.dcm"\r\n\r\n'
    return head.encode() + data + b"\r\n"


def judge(client: TestClient, sent: Sent) -> str:
    """Send a request and check what must hold; return what became of it."""
    answer = client.post(sent.path, content=sent.body, headers=sent.headers)
    assert answer.status_code < 500 or answer.status_code in (503, 504), answer.text
    assert CANARY not in str(answer.headers), answer.headers
    if answer.status_code != 200:
        error = ErrorAnswer.model_validate_json(answer.content).error
        assert error.code in set(ErrorCode) and error.fix and CANARY not in answer.text
        return f"{answer.status_code} {error.code}"
    kind = answer.headers["content-type"].partition(";")[0]
    if kind == "application/json" and sent.path == "/v1/diagnose":
        Diagnosis.model_validate_json(answer.content)
    return f"200 {kind}"


@contextmanager
def endpoint(checkpoint: Path) -> Iterator[TestClient]:
    """Run the application in this process, with the limits of the other fuzzing."""
    given = ServeSettings(limits=LIMITS, requests_per_minute=1_000_000, max_body_bytes=2**22)
    decoder = DecoderService(given.limits, store_size=given.store_size)
    backend = InProcess(decoder, EncoderService(checkpoint))
    yield TestClient(http_app(Gateway(backend, given), KeyRing([]), given))
    decoder.close()


def untrained(folder: Path) -> Path:
    """Write a small model that knows nothing."""
    config = ModelConfig(image_size=32, embed_dim=16, max_tokens=16, vocabulary=256)
    tokenizer = Tokenizer.train(["nodule", "no mass"], vocabulary=config.vocabulary, max_tokens=config.max_tokens)
    versions = Versions(load_ontology().fingerprint, load_knowledge().fingerprint, synthetic=True)
    save_checkpoint(folder, DualEncoder(config, tokenizer), versions)
    return folder


def main() -> None:
    """Send many, and tell what became of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    begun, found, memory = time.monotonic(), Counter[str](), []
    with tempfile.TemporaryDirectory() as folder, endpoint(untrained(Path(folder) / "model")) as client:
        for number in range(chosen.count):
            found[judge(client, make(chosen.seed * 10**7 + number))] += 1
            if number % max(1, chosen.count // 10) == 0:
                memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    told = {"requests": chosen.count, "seconds": round(time.monotonic() - begun), "largest_mb": memory}
    sys.stdout.write(json.dumps({**told, "outcomes": dict(found.most_common())}, indent=1) + "\n")


if __name__ == "__main__":
    main()
