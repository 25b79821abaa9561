"""Settings: one typed model per job, filled from defaults < YAML file < environment < ``key=value``.

An unknown key is an error that suggests the right one, wherever it came from. Fields marked `operational` (where and
how fast a job runs) do not decide its result and stay out of the configuration fingerprint.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medfilip.core.errors import ErrorCode, MedfilipError

ENVIRONMENT_PREFIX = "MEDFILIP"


class Settings(BaseModel):
    """Base of every settings model: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def semantic(self) -> dict[str, Any]:
        """Return the values that decide the result, as JSON data: what a configuration fingerprint covers."""
        values: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("operational"):
                continue
            value = getattr(self, name)
            values[name] = (
                value.semantic() if isinstance(value, Settings) else self.model_dump(mode="json", include={name})[name]
            )
        return values


def operational(default: Any = ..., *, description: str, **constraints: Any) -> Any:
    """Declare a field that does not decide the result: paths of outputs, cluster addresses, concurrency."""
    return Field(default, description=description, json_schema_extra={"operational": True}, **constraints)


SettingsT = TypeVar("SettingsT", bound=Settings)


def load_settings(
    model: type[SettingsT],
    job: str,
    *,
    base: Mapping[str, Any] | None = None,
    file: Path | None = None,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> SettingsT:
    """Build the settings of a job.

    Parameters
    ----------
    model
        The job's settings class.
    job
        Name of the job; its environment variables are ``MEDFILIP_<JOB>__<KEY>[__<SUBKEY>]``.
    base
        Values in place of the defaults, such as those of an earlier run.
    file
        YAML file with a mapping at its top.
    overrides
        ``key=value`` or ``key.subkey=value``; values are read as YAML (``4``, ``true``, ``[a, b]``).

    Raises
    ------
    MedfilipError
        ``config_unknown_key`` with a suggestion, ``config_invalid`` with the field, its limit and what was given,
        ``config_file_unreadable``.
    """
    merged: dict[str, Any] = {}
    _merge(merged, base or {})
    _merge(merged, _read_yaml(file) if file else {})
    _merge(merged, _from_environment(job, os.environ if environment is None else environment))
    for override in overrides:
        _merge(merged, _parse_override(override))
    return validate_settings(model, merged)


def validate_settings(model: type[SettingsT], values: Mapping[str, Any]) -> SettingsT:
    """Build settings from values that are already there, with the errors of `load_settings`."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        # not chained: pydantic's message repeats the values given, and one of them may be a secret in the wrong place
        raise _explain(error, model) from None


def known_keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Yield (dotted key, default, description) of every setting, depth first: the material of ``--help``."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            yield from known_keys(nested, f"{key}.")
        else:
            default = "required" if field.is_required() else _one_line(field.get_default(call_default_factory=True))
            yield key, default, field.description or ""


def to_yaml(settings: Settings) -> str:
    """Render settings as YAML that can be given back with ``--config``."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _one_line(value: Any) -> str:
    if isinstance(value, tuple | set | frozenset):
        value = sorted(value) if not isinstance(value, tuple) else list(value)
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n...\n").strip() if value != "" else "''"


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MedfilipError(
            ErrorCode.CONFIG_FILE_UNREADABLE,
            f"The settings file {file} cannot be read as YAML ({type(error).__name__}).",
            fix="Give --config a YAML file; --print-config prints one to start from.",
        ) from error
    if not isinstance(content, dict):
        raise MedfilipError(
            ErrorCode.CONFIG_FILE_UNREADABLE,
            f"The settings file {file} must hold a mapping of keys to values at its top.",
            fix="Write lines of the form 'key: value'.",
        )
    return content


def _from_environment(job: str, environment: Mapping[str, str]) -> dict[str, Any]:
    prefix = f"{ENVIRONMENT_PREFIX}_{job.upper().replace('-', '_')}__"
    values: dict[str, Any] = {}
    for name in sorted(environment):
        if name.startswith(prefix):
            path = name.removeprefix(prefix).lower().split("__")
            _merge(values, _nest(path, _parse_value(environment[name], ".".join(path))))
    return values


def _parse_override(override: str) -> dict[str, Any]:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"'{override}' is not a setting.",
            fix="Write settings as key=value, for example seed=7 or ray.num_cpus=8.",
        )
    return _nest(key.strip().split("."), _parse_value(text, key))


def _parse_value(text: str, key: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"The value of '{key}' cannot be read as YAML.",
            fix="Quote it, for example key='\"text with: a colon\"'.",
        ) from error


def _nest(path: Sequence[str], value: Any) -> dict[str, Any]:
    for part in reversed(path):
        value = {part: value}
    return dict(value)


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _explain(error: ValidationError, model: type[BaseModel]) -> MedfilipError:
    # A mistyped key is told before the key that is missing because of it.
    first = min(error.errors(include_url=False), key=lambda item: item["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        keys = [known for known, _, _ in known_keys(model)]
        near = difflib.get_close_matches(key, keys, n=1, cutoff=0.5) or [k for k in keys if k.split(".")[-1] == key][:1]
        fix = f"Did you mean '{near[0]}'?" if near else "--help lists the keys."
        return MedfilipError(ErrorCode.CONFIG_UNKNOWN_KEY, f"There is no setting '{key}'.", fix=fix)
    if first["type"] == "missing":
        return MedfilipError(
            ErrorCode.CONFIG_INVALID, f"The setting '{key}' is required.", fix=f"Give it as {key}=VALUE."
        )
    # The value given is not repeated: a secret pasted into the wrong key must not reach a log.
    reason = first["msg"].removeprefix("Value error, ")
    what = f"The setting '{key}' does not fit" if key else "The settings do not fit together"
    fix = f"Quote it: {key}='\"TEXT\"'." if first["type"] == "string_type" else "--help says what it takes."
    return MedfilipError(ErrorCode.CONFIG_INVALID, f"{what}: {reason}.", fix=fix)
