"""Settings of the endpoint, its deployment file, and the limits that reach Ray Serve."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import known_keys, validate_settings
from serve.keys import hash_key, new_key
from serve.settings import ServeSettings

CONFIG = Path(__file__).parents[3] / "serve" / "config.yaml"


def test_every_setting_is_described() -> None:
    described = [(key, meaning) for key, _, meaning in known_keys(ServeSettings) if not key.startswith("limits.")]
    assert len(described) > 30 and all(meaning for _, meaning in described)


@pytest.mark.parametrize(
    "values",
    [
        {"decoder": {"min_replicas": 3, "max_replicas": 2}},
        {"encoder": {"max_batch_size": 65}},
        {"encoder": {"device": "cuda"}},
        {"gateway": {"target_ongoing_requests": 1000}},
        {"max_label_characters": 301},
    ],
)
def test_settings_that_contradict_each_other_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ServeSettings.model_validate({"checkpoint": "x", **values})


def test_a_wrong_value_is_not_repeated() -> None:
    with pytest.raises(MedfilipError) as caught:
        validate_settings(ServeSettings, {"checkpoint": "x", "port": "secret-key"})
    assert caught.value.code == ErrorCode.CONFIG_INVALID and "secret-key" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_the_deployment_file_is_valid_and_states_every_limit() -> None:
    schema = pytest.importorskip("ray.serve.schema")
    content = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    [application] = schema.ServeDeploySchema.model_validate(content).applications
    settings = validate_settings(ServeSettings, application.args)
    assert application.import_path == "serve.app:build" and not settings.allow_anonymous
    assert content["http_options"]["request_timeout_s"] > settings.request_timeout_s + settings.upload_timeout_s
    assert not content["logging_config"]["enable_access_log"]


def test_the_built_application_has_limits_and_no_key(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray.serve")
    from serve.app import build

    key = new_key()
    monkeypatch.setenv("MEDFILIP_API_KEYS", key)
    deployment = build({"checkpoint": str(tiny_checkpoint)})._bound_deployment
    assert deployment.max_ongoing_requests == 512 and deployment.max_queued_requests == 512
    values, hashes, decoder, encoder = deployment.init_args
    assert key not in json.dumps(values) and hashes == (hash_key(key),)
    assert decoder._bound_deployment.max_ongoing_requests == 4
    assert encoder._bound_deployment.max_queued_requests == 64
    monkeypatch.delenv("MEDFILIP_API_KEYS")
    with pytest.raises(MedfilipError, match="no API key"):
        build({"checkpoint": str(tiny_checkpoint)})
