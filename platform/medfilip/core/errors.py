"""One error type with stable codes, shared by the command line, the endpoint and the reject tables.

A message names the field, the limit and the fix, and never carries report text, names or pixels: it is printed,
logged, sent over HTTP and written to ``rejected`` datasets as it is.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """Stable codes. They are part of the interface: add, never rename."""

    # settings and command line
    CONFIG_UNKNOWN_KEY = "config_unknown_key"
    CONFIG_INVALID = "config_invalid"
    CONFIG_FILE_UNREADABLE = "config_file_unreadable"
    SECRET_MISSING = "secret_missing"  # noqa: S105 - a code, not a secret
    DEPENDENCY_MISSING = "dependency_missing"
    # storage
    URI_NOT_ALLOWED = "uri_not_allowed"
    INPUT_NOT_FOUND = "input_not_found"
    INPUT_EMPTY = "input_empty"
    INPUT_NOT_PUBLISHED = "input_not_published"
    COLUMN_MISSING = "column_missing"
    SCHEMA_MISMATCH = "schema_mismatch"
    SCHEMA_VERSION_MISMATCH = "schema_version_mismatch"
    SHARD_CORRUPT = "shard_corrupt"
    MANIFEST_CORRUPT = "manifest_corrupt"
    RUN_LOCKED = "run_locked"
    PUBLISH_RACE_LOST = "publish_race_lost"
    ID_COLLISION = "id_collision"
    STORAGE_FAILED = "storage_failed"
    # reports
    REPORT_EMPTY = "report_empty"
    REPORT_TOO_LONG = "report_too_long"
    REPORT_DUPLICATE = "report_duplicate"
    REPORT_UNREADABLE = "report_unreadable"
    REPORT_UNDECODABLE = "report_undecodable"
    REPORT_NO_CONTENT = "report_no_content"
    LANGUAGE_UNSUPPORTED = "language_unsupported"
    NOT_CHEST = "not_chest"
    NOT_RADIOGRAPH = "not_radiograph"
    SUPERSEDED = "superseded"
    SPLIT_UNKNOWN = "split_unknown"
    EXCLUDED = "excluded"
    # extraction
    ENGINE_UNTRAINED = "engine_untrained"
    ENGINE_FAILED = "engine_failed"
    ENGINE_QUARANTINED = "engine_quarantined"
    REMOTE_NOT_ALLOWED = "remote_not_allowed"
    REPLY_EMPTY = "reply_empty"
    REPLY_INVALID = "reply_invalid"
    REPLY_REFUSED = "reply_refused"
    REPLY_TRUNCATED = "reply_truncated"
    SENTENCE_TOO_LONG = "sentence_too_long"
    GOLD_INVALID = "gold_invalid"
    # knowledge
    DRAFT_UNFIT = "draft_unfit"
    # images
    IMAGE_TOO_LARGE = "image_too_large"
    IMAGE_NOT_DICOM = "image_not_dicom"
    IMAGE_NO_PIXELS = "image_no_pixels"
    IMAGE_UNDECODABLE = "image_undecodable"
    IMAGE_UNSUPPORTED = "image_unsupported"
    IMAGE_NOT_CHEST = "image_not_chest"
    IMAGE_BURNED_IN = "image_burned_in"
    IMAGE_MISSING = "image_missing"
    IMAGE_DUPLICATE = "image_duplicate"
    IMAGE_DECODE_TIMEOUT = "image_decode_timeout"
    STUDY_TOO_LARGE = "study_too_large"
    MASK_UNFIT = "mask_unfit"
    # answers in the form of a standard
    SOURCE_UNIDENTIFIED = "source_unidentified"
    SOURCES_DIFFER = "sources_differ"
    MAP_MISSING = "map_missing"
    MAP_UNFIT = "map_unfit"
    ARCHIVE_REFUSED = "archive_refused"
    STORE_REFUSED = "store_refused"
    # model, training, evaluation
    CHECKPOINT_INVALID = "checkpoint_invalid"
    WEIGHTS_UNSAFE = "weights_unsafe"
    WEIGHTS_UNREADABLE = "weights_unreadable"
    WEIGHTS_UNFIT = "weights_unfit"
    NO_TRAINING_PAIRS = "no_training_pairs"
    NOT_ENOUGH_DATA = "not_enough_data"
    LABEL_UNKNOWN = "label_unknown"
    DATA_INCOMPLETE = "data_incomplete"
    SPLIT_LEAKS = "split_leaks"
    SPLIT_MISMATCH = "split_mismatch"
    TRAINING_DIVERGED = "training_diverged"
    QUALITY_TOO_LOW = "quality_too_low"
    # endpoint
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    LENGTH_REQUIRED = "length_required"
    REQUEST_TOO_LARGE = "request_too_large"
    REQUEST_INVALID = "request_invalid"
    MEDIA_TYPE_UNSUPPORTED = "media_type_unsupported"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_ACCEPTABLE = "not_acceptable"
    OVERLOADED = "overloaded"
    MODEL_CHANGED = "model_changed"
    RATE_LIMITED = "rate_limited"
    AUDIT_FAILED = "audit_failed"
    UPLOAD_TIMEOUT = "upload_timeout"
    REQUEST_TIMEOUT = "request_timeout"
    PORT_TAKEN = "port_taken"
    ENDPOINT_UNREACHABLE = "endpoint_unreachable"
    # cluster
    CLUSTER_UNREACHABLE = "cluster_unreachable"
    JOB_FAILED = "job_failed"
    INTERNAL = "internal"


class MedfilipError(Exception):
    """An expected failure, told in one sentence together with what to do about it.

    Parameters
    ----------
    code
        Stable code of the failure.
    message
        What is wrong, with the field and the limit by name; without report text, names or pixels.
    fix
        What the user can do about it, as an imperative sentence.
    """

    def __init__(self, code: ErrorCode, message: str, *, fix: str = "") -> None:
        super().__init__(code, message, fix)
        self.code = code
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message} {self.fix}".strip()

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions cross process borders by pickle (Ray, decoding workers), which loses keyword arguments.
        return _rebuild, (self.code, self.message, self.fix)


def _rebuild(code: ErrorCode, message: str, fix: str) -> MedfilipError:
    return MedfilipError(code, message, fix=fix)
