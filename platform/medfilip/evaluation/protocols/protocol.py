"""A protocol: what has to be fixed before a number on a public data set means anything.

Protocols are YAML files of the package (``evaluation/data/protocols``), so that a reviewer reads one page for each data
set: which files, which of its labels are which category, what silence means, and who is in which split.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint
from medfilip.core.ids import hash64
from medfilip.findings.labels import plain_label
from medfilip.findings.ontology import load_ontology

Origin = Literal["train", "validation", "test", "all"]
"""Part of a data set that its own files put an image in; ``all`` where they name none."""

EVALUATED = ("validation", "test")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PatientHash(_Strict):
    """A division of patients that anybody can repeat.

    A patient's number is the 8-byte BLAKE2b digest of ``salt``, the byte 0x1F and the patient's id as the data set
    writes it (UTF-8), read as a signed big-endian integer, modulo ``parts`` (the remainder that is not negative).

    Attributes
    ----------
    divided
        Which part of the data set is divided.
    salt, parts
        See above.
    validation, test
        The numbers that mean these splits; the other patients are ``train``.
    """

    divided: Literal["train", "all"]
    salt: str = Field(min_length=1)
    parts: int = Field(ge=2)
    validation: tuple[int, ...] = ()
    test: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> PatientHash:
        numbers = (*self.validation, *self.test)
        if len(set(numbers)) < len(numbers) or not all(0 <= number < self.parts for number in numbers):
            raise ValueError("the numbers of the splits must differ and lie below 'parts'")
        return self

    def split_of(self, patient: str) -> str:
        """Return ``"train"``, ``"validation"`` or ``"test"``."""
        number = hash64(self.salt, patient) % self.parts
        return "validation" if number in self.validation else "test" if number in self.test else "train"


class SplitRule(_Strict):
    """Who is in which split.

    Attributes
    ----------
    official
        What the data set ships, in words.
    patient_hash
        How the rest is divided; without it the data set's own parts stand.
    shared_patients
        What becomes of a patient of several splits: ``refuse`` the data, or ``leave_out`` their images of all splits
        but test, which stays the official one, and count them.
    """

    official: str
    patient_hash: PatientHash | None = None
    shared_patients: Literal["refuse", "leave_out"] = "refuse"


class Counts(_Strict):
    """How many images and patients there are; what is not known is left out."""

    images: int | None = None
    patients: int | None = None


class Documented(_Strict):
    """What a release of the data set holds, as published.

    Attributes
    ----------
    release
        Name of the release.
    source
        Where the counts are published.
    total, by_origin
        Counts of all that the tables list, and of each part, before views or other rows are left out.
    at_least
        Whether the publication rounds down, so that the counts are lower bounds.
    """

    release: str
    source: str
    total: Counts = Counts()
    by_origin: dict[Origin, Counts] = {}
    at_least: bool = False


class Layout(_Strict):
    """Which files there are.

    Attributes
    ----------
    tables
        Role → names of the file that plays it, in the order in which they are looked for.
    optional
        Roles that may be missing.
    images
        Endings of image files, in lower case.
    folders
        What an image's path below the data must contain; empty: anything.
    described
        The images in words: format, depth, folders.
    """

    tables: dict[str, tuple[str, ...]] = Field(min_length=1)
    optional: tuple[str, ...] = ()
    images: tuple[str, ...] = Field(min_length=1)
    folders: tuple[str, ...] = ()
    described: str


class Protocol(_Strict):
    """An evaluation protocol.

    Attributes
    ----------
    id, title, version
        Its name here, the data set's name, and which release and which state of this file.
    licence, access, url, citation
        What may be done with the data, what it takes to get them, and where.
    labels
        Category of the ontology → labels of the data set, any one of which shows it.
    denies
        Label → categories that it says are absent, or ``all`` of them.
    without_category
        Label → why it counts for no category.
    silence
        What a label that is not stated means.
    narrower
        What a category is of which only a narrower category of the ontology is stated.
    patients
        What a patient is known by, in words.
    views
        Which images are taken, in words.
    sha256
        Known hashes of files by name; files that are not named are not pinned.
    notes
        What a reader of the numbers must know.
    checked
        What of this file was checked against which source.
    """

    id: str
    title: str
    version: str
    licence: str
    access: str
    url: str
    citation: str
    task: Literal["multi_label", "single_label"]
    layout: Layout
    labels: dict[str, tuple[str, ...]] = Field(min_length=1)
    denies: dict[str, tuple[str, ...] | Literal["all"]] = {}
    without_category: dict[str, str] = {}
    silence: Literal["absent", "unknown"]
    narrower: Literal["absent", "unknown"] = "absent"
    patients: str
    views: str
    split: SplitRule
    documented: tuple[Documented, ...] = ()
    sha256: dict[str, str] = {}
    notes: tuple[str, ...] = ()
    checked: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Protocol:
        known = load_ontology().categories
        denied = {name for what in self.denies.values() if what != "all" for name in what}
        unknown = sorted((set(self.labels) | denied) - set(known))
        if unknown:
            raise ValueError(f"unknown categories {unknown}")
        if denied - set(self.labels):
            raise ValueError(f"'denies' names categories without labels: {sorted(denied - set(self.labels))}")
        both = {plain_label(name) for name in self._naming()} & set(map(plain_label, self.without_category))
        if both:
            raise ValueError(f"labels with and without a category: {sorted(both)}")
        return self

    def _naming(self) -> Iterable[str]:
        for names in self.labels.values():
            yield from names
        yield from self.denies

    @property
    def categories(self) -> tuple[str, ...]:
        """What is diagnosed, in the order of the report."""
        return tuple(self.labels)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Every label of the data set in its plain spelling (`plain_label`), each once, in alphabetical order."""
        return tuple(sorted({plain_label(name) for name in (*self._naming(), *self.without_category)}))

    @cached_property
    def source_index(self) -> dict[str, int]:
        """Plain label → its position in `sources`."""
        return {name: at for at, name in enumerate(self.sources)}

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the whole file."""
        return fingerprint(self.model_dump(mode="json"))


def protocol_names() -> list[str]:
    """Return the names of the protocols that ship with the package."""
    folder = files("medfilip.evaluation") / "data" / "protocols"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


@lru_cache(maxsize=16)
def load_protocol(name: str) -> Protocol:
    """Load a protocol by name.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` for a name that is none of `protocol_names`.
    """
    if name not in protocol_names():
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"There is no protocol '{name}'.",
            fix=f"Use one of: {', '.join(protocol_names())}.",
        )
    file = files("medfilip.evaluation") / "data" / "protocols" / f"{name}.yaml"
    return Protocol.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
