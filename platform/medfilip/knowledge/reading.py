"""Reading knowledge from YAML: several files make one whole, and every flaw is told with its place.

A file holds any of ``version``, ``sources``, ``signs``, ``without_entry`` and ``entries``
(`medfilip.knowledge.knowledge.Knowledge`); drafts of a run have the same form.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import yaml
from pydantic import ValidationError

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.findings.ontology import Ontology
from medfilip.knowledge.knowledge import Entry, Knowledge, installed_documents
from medfilip.storage.location import Location

INSTALLED = "installed"
"""What a user writes in place of a file for the knowledge that ships with the package."""
OTHER = "other:"
"""Begins a category that the ontology does not have."""

_TABLES = ("sources", "without_entry", "entries")
_FIELDS = (*_TABLES, "version", "signs")


class Flaw(NamedTuple):
    """What makes a file unusable, and where: a dotted path of keys."""

    place: str
    message: str


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping: the later would silently replace the earlier."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key '{twice}' stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def parse_knowledge(text: str, ontology: Ontology) -> Knowledge:
    """Parse and check knowledge given as the text of one YAML file.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` if a field does not fit or a category, severity, site or pattern is not in the ontology.
    """
    return parse_documents({"knowledge.yaml": text}, ontology)


def parse_documents(documents: Mapping[str, str], ontology: Ontology) -> Knowledge:
    """Parse and check knowledge given as several YAML files: name → text; see `parse_knowledge`."""
    knowledge, flaws = inspect_documents(documents, ontology)
    if flaws:
        more = f" ({len(flaws) - 1} more)" if len(flaws) > 1 else ""
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"The knowledge is invalid at '{flaws[0].place}': {flaws[0].message}{more}.",
            fix="Correct it; the header of knowledge.yaml describes every field, 'medfilip knowledge lint' all flaws.",
        )
    return knowledge


def inspect_documents(documents: Mapping[str, str], ontology: Ontology) -> tuple[Knowledge, list[Flaw]]:
    """Return what is usable of some YAML files, and all flaws of the rest."""
    merged, flaws = _merged(documents)
    entries: dict[str, Entry] = {}
    for key, content in merged["entries"].items():
        try:
            entries[str(key)] = Entry.model_validate({**dict(content or {}), "category": str(key)})
        except (ValidationError, TypeError, ValueError) as error:
            flaws += _flaws_of(error, ("entries", str(key)))
    flaws += [Flaw(*flaw) for flaw in _unknown_names(entries, merged, ontology)]
    version = merged["version"]
    if not isinstance(version, int) or isinstance(version, bool):
        flaws.append(Flaw("version", "there must be a whole number"))
        version = 0
    try:
        shared = {name: merged[name] for name in ("sources", "signs", "without_entry")}
        return Knowledge.model_validate({"version": version, "entries": entries, **shared}), flaws
    except ValidationError as error:
        return Knowledge(version=version, entries=entries), flaws + _flaws_of(error, ())


def read_knowledge(place: str, ontology: Ontology) -> tuple[Knowledge, list[Flaw]]:
    """Read the installed knowledge, a YAML file, or all YAML files of a folder (local or s3), with its flaws.

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND`` if there is no such file.
    """
    if place == INSTALLED:
        return inspect_documents(installed_documents(), ontology)
    location = Location.parse(place)
    if location.is_dir():
        found = [file for file in location.children() if file.name.endswith(".yaml")]
    else:
        found = [location] if location.exists() else []
    if not found:
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND,
            f"There is no knowledge file at '{place}'.",
            fix=f"Give a YAML file, a folder of them, or the word '{INSTALLED}'.",
        )
    try:
        documents = {file.name: file.read_bytes().decode() for file in found}
    except UnicodeDecodeError as error:
        raise MedfilipError(
            ErrorCode.CONFIG_FILE_UNREADABLE, f"A file at '{place}' is no UTF-8 text.", fix="Save it as UTF-8."
        ) from error
    return inspect_documents(documents, ontology)


def _merged(documents: Mapping[str, str]) -> tuple[dict[str, Any], list[Flaw]]:
    merged: dict[str, Any] = {"version": None, "signs": [], **{name: {} for name in _TABLES}}
    flaws: list[Flaw] = []
    for name, text in documents.items():
        try:
            content = yaml.load(text, _Loader)  # noqa: S506 - a safe loader with one more check
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            problem = str(getattr(error, "problem", None) or type(error).__name__)
            flaws.append(Flaw(name, f"line {mark.line + 1}: {problem}" if mark else problem))
            continue
        if not isinstance(content, dict):
            flaws.append(Flaw(name, "there must be a mapping of keys to values at its top"))
            continue
        flaws += [Flaw(f"{name}: {key}", "there is no such field") for key in content if key not in _FIELDS]
        flaws += _take(content, merged, name)
    if not merged["entries"] and not flaws:
        flaws.append(Flaw("entries", "there are none"))
    return merged, flaws


def _take(content: dict[str, Any], merged: dict[str, Any], name: str) -> Iterator[Flaw]:
    """Add the content of a file to what the files before it hold."""
    for table in _TABLES:
        part = content.get(table) or {}
        if not isinstance(part, dict):
            yield Flaw(f"{name}: {table}", "there must be a mapping")
            continue
        yield from (
            Flaw(f"{table}.{key}", f"it stands in {name} and in another file") for key in part.keys() & merged[table]
        )
        merged[table].update(part)
    signs = content.get("signs") or []
    if isinstance(signs, list):
        merged["signs"] += signs
    else:
        yield Flaw(f"{name}: signs", "there must be a list")
    if "version" in content:
        merged["version"] = content["version"]


def _flaws_of(error: ValidationError | TypeError | ValueError, place: tuple[str, ...]) -> list[Flaw]:
    if not isinstance(error, ValidationError):
        return [Flaw(".".join(place), "there must be a mapping")]
    return [Flaw(".".join(map(str, (*place, *item["loc"]))), item["msg"]) for item in error.errors()]


def _unknown_names(
    entries: Mapping[str, Entry], merged: Mapping[str, Any], ontology: Ontology
) -> Iterator[tuple[str, str]]:
    known = ontology.categories
    slots = (
        ("severities", "severity", set(ontology.severities)),
        ("sites", "site", set(ontology.sites)),
        ("patterns", "pattern", set(ontology.patterns)),
    )
    for table in ("without_entry", "signs"):
        yield from (
            (table, f"the ontology has no category {name}") for name in merged[table] or () if name not in known
        )
    for key, entry in entries.items():
        place = f"entries.{key}"
        if key not in known and not (key.startswith(OTHER) and key.removeprefix(OTHER).strip()):
            yield place, f"the ontology has no category {key}"
        for axis, attributes in entry.attributes.items():
            for slot, kind, ids in slots:
                named = {name for attribute in attributes for name in getattr(attribute, slot)} - ids
                yield from ((f"{place}.{axis}", f"the ontology has no {kind} {name}") for name in sorted(named))
