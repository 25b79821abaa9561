"""The contract: whatever is asked, ``/openapi.json`` says what can be answered, and nothing fails inside."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from serve.gateway import Gateway
from serve.keys import KeyRing, hash_key
from serve.settings import ServeSettings
from serve.web import http_app
from tests.unit.serve.conftest import KEY, InProcess

OPERATIONS = [
    ("POST", "/v1/diagnose"), ("POST", "/v1/embed"), ("GET", "/v1/model"), ("GET", "/v1/labels"), ("GET", "/healthz"),
    ("GET", "/readyz"),
]  # fmt: skip


@pytest.fixture
def contract(backend: InProcess) -> schemathesis.BaseSchema:
    served = ServeSettings(requests_per_minute=1_000_000)
    app = http_app(Gateway(backend, served), KeyRing([hash_key(KEY)]), served)
    return schemathesis.openapi.from_asgi("/openapi.json", app)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_in_the_contract(contract: schemathesis.BaseSchema, method: str, path: str) -> None:
    @settings(
        max_examples=60 if method == "POST" else 5, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=contract[path][method].as_strategy())
    def ask(case: schemathesis.Case) -> None:
        # A schema cannot say which bytes are a radiograph; and one good key is enough, whatever the other header holds.
        excluded = [ignored_auth, positive_data_acceptance]
        case.call_and_validate(headers={"X-API-Key": KEY}, excluded_checks=excluded)

    ask()


def test_no_operation_is_left_out(contract: schemathesis.BaseSchema) -> None:
    found = {(one.ok().method.upper(), one.ok().path) for one in contract.get_all_operations()}
    assert found == set(OPERATIONS)
