"""Which archives may be talked to, and within which bounds."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import Settings, operational


class Archive(Settings):
    """An archive that speaks DICOMweb."""

    url: str = operational(description="base URL of DICOMweb, such as https://HOST/dicom-web; http on loopback only")
    ca_file: str = operational(
        "", description="PEM file of the authority that signed its certificate; empty for known ones"
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        parts = urlsplit(url)
        plain = not (parts.username or parts.password or parts.query or parts.fragment) and url.isprintable()
        if parts.scheme not in ("http", "https") or not parts.hostname or not plain or " " in url:
            raise ValueError("it is no plain https:// address without user, query and fragment")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise ValueError("http:// would send images in the open; use https://")
        return url.rstrip("/")


class PacsSettings(Settings):
    """The archives by name; credentials of one come from MEDFILIP_PACS_<NAME> or MEDFILIP_PACS_<NAME>_FILE."""

    archives: dict[str, Archive] = operational({}, description="archives that may be read and written, by name")
    connect_timeout_s: float = operational(5.0, gt=0, le=60, description="longest wait for a connection")
    read_timeout_s: float = operational(30.0, gt=0, le=600, description="longest silence during an answer")
    total_timeout_s: float = operational(120.0, gt=0, le=3600, description="longest answer")
    max_instances: int = Field(16, ge=1, le=1000, description="CR and DX images of a study; one with more is refused")
    max_query_bytes: int = Field(4 * 2**20, ge=1024, le=2**28, description="size of an answer to a search")
    max_instance_bytes: int = Field(64 * 2**20, ge=1024, le=2**31, description="size of an image that is fetched")
    max_store_bytes: int = Field(64 * 2**20, ge=1024, le=2**31, description="size of what is stored at a time")

    @field_validator("archives")
    @classmethod
    def _check_names(cls, archives: dict[str, Archive]) -> dict[str, Archive]:
        if not all(name.isascii() and name.isidentifier() and name.islower() and len(name) <= 32 for name in archives):
            raise ValueError("names of archives are small letters, digits and _, at most 32")
        return archives


def find_archive(settings: PacsSettings, wanted: str) -> tuple[str, Archive]:
    """Return name and settings of an archive, asked for by its name or its base URL.

    Raises
    ------
    MedfilipError
        ``URI_NOT_ALLOWED`` for one that the settings do not name.
    """
    for name, archive in settings.archives.items():
        if wanted in (name, archive.url, f"{archive.url}/"):
            return name, archive
    raise MedfilipError(
        ErrorCode.URI_NOT_ALLOWED,
        "The archive is not one of those that the settings allow.",
        fix=f"Ask for one of: {', '.join(settings.archives) or 'none is set'}; or have it added to 'archives'.",
    )


def secret_name(archive: str) -> str:
    """Name of the secret that holds the credentials of an archive."""
    return f"PACS_{archive.upper()}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
