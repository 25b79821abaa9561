"""What ``/openapi.json`` says of the bodies that `serve.request` reads by itself."""

from __future__ import annotations

from typing import Any, get_args

from medfilip.model.calibration import Rule
from medfilip.model.question import HeatMaps
from serve.request import FORM_TYPE, RAW_TYPES

_BINARY: dict[str, Any] = {"type": "string", "format": "binary"}
_FILES: dict[str, Any] = {"type": "array", "items": _BINARY, "description": "DICOM, PNG or JPEG; of one study"}
_QUESTION: dict[str, dict[str, Any]] = {
    "labels": {
        "type": "array",
        "items": {"type": "string"},
        "description": "ontology ids, their names or short texts; none for the categories the model was calibrated "
        "for, or for the described ones alone",
        "example": ["pneumothorax", "small left pleural effusion"],
    },
    "described": {
        "type": "array",
        "items": {"type": "string"},
        "description": "labels the ontology does not know, as NAME: phrase; phrase",
        "example": ["air crescent sign: crescent of air around a mass; thin dark rim"],
    },
    "operating_point": {
        "type": "string",
        "enum": list(get_args(Rule)),
        "description": "rule of the thresholds; by default the one the model was calibrated with",
    },
    "threshold": {"type": "number", "minimum": 0, "maximum": 1, "description": "one threshold for all labels instead"},
    "attributes": {"type": "integer", "minimum": 0, "description": "best matching visual attributes of each finding"},
    "heat_maps": {"type": "string", "enum": list(get_args(HeatMaps)), "description": "which findings get a heat map"},
    "preview": {"type": "boolean", "description": "whether the answer holds a PNG of each image"},
}
_STUDY: dict[str, dict[str, Any]] = {
    "study": {"type": "string", "description": "Study Instance UID of a study in an archive, instead of files"},
    "archive": {"type": "string", "description": "name of the archive; needed where there are several"},
    "store": {"type": "boolean", "description": "whether the answer is stored in the archive, as SR, SC and SEG"},
}
_TEXTS: dict[str, Any] = {"type": "array", "items": {"type": "string"}, "description": "to be embedded as they are"}


def _body(required: list[str], properties: dict[str, dict[str, Any]]) -> dict[str, Any]:
    form = {"type": "object", "required": required, "properties": {"file": _FILES, **properties}}
    return {
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": schema, "explode": True}
            for name, schema in properties.items()
        ],
        "requestBody": {
            "required": True,
            "content": {FORM_TYPE: {"schema": form}, **{kind: {"schema": _BINARY} for kind in RAW_TYPES}},
        },
    }


DIAGNOSE_BODY = _body([], _QUESTION | _STUDY)
EMBED_BODY = _body([], {"texts": _TEXTS})


def with_security(schema: dict[str, Any]) -> dict[str, Any]:
    """Say in a contract how keys are sent, and what needs one: everything below ``/v1/``."""
    schema.setdefault("components", {})["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "x_api_key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for path, operations in schema["paths"].items():
        for operation in operations.values() if path.startswith("/v1/") else ():
            operation["security"] = [{"bearer": []}, {"x_api_key": []}]
    return schema
