"""The ontology: categories, sites and qualifiers, loaded from ``data/ontology.yaml`` and checked."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint

View = Literal["frontal", "lateral"]
Group = Literal["finding", "diagnosis", "benign", "degenerative", "device", "postoperative", "variant", "quality"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Crosswalk(_Strict):
    """How a category is called elsewhere."""

    mesh: tuple[str, ...] = ()
    nih14: str | None = None
    chexpert14: str | None = None
    medfilip61: tuple[str, ...] = ()
    rollup_to: tuple[str, ...] = ()


class Category(_Strict):
    """A finding category; `Ontology` fills ``id`` from the YAML key."""

    id: str
    label: str
    group: Group
    parents: tuple[str, ...] = ()
    implied_sites: tuple[str, ...] = ()
    views: tuple[View, ...] = ("frontal", "lateral")
    synonyms: tuple[str, ...] = ()
    crosswalk: Crosswalk = Crosswalk()

    @property
    def terms(self) -> tuple[str, ...]:
        """Every way the category is named: the label and its synonyms, without repetition."""
        return tuple(dict.fromkeys((self.label.lower(), *self.synonyms)))


class Site(_Strict):
    """An anatomical site; two sites of one ``region`` count as overlapping."""

    id: str
    region: str
    parent: str | None = None
    synonyms: tuple[str, ...] = ()


class Ontology(_Strict):
    """Categories, sites and qualifiers; insertion order is the order of the YAML and of the integer codes."""

    version: int
    severities: dict[str, tuple[str, ...]]
    sizes: dict[str, tuple[str, ...]]
    patterns: dict[str, tuple[str, ...]]
    sites: dict[str, Site]
    categories: dict[str, Category] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _fill_ids(cls, data: dict[str, object]) -> dict[str, object]:
        for name in ("sites", "categories"):
            entries = data.get(name)
            if isinstance(entries, dict):
                data[name] = {key: {"id": key, **entry} for key, entry in entries.items()}
        return data

    @model_validator(mode="after")
    def _check_references(self) -> Ontology:
        for category in self.categories.values():
            unknown = [parent for parent in category.parents if parent not in self.categories]
            unknown += [site for site in category.implied_sites if site not in self.sites]
            if unknown:
                raise ValueError(f"category '{category.id}' refers to unknown entries {unknown}")
            if category.id in self.ancestors(category.id):
                raise ValueError(f"category '{category.id}' is its own ancestor")
        for site in self.sites.values():
            if site.parent is not None and site.parent not in self.sites:
                raise ValueError(f"site '{site.id}' has the unknown parent '{site.parent}'")
        return self

    def ancestors(self, category: str) -> frozenset[str]:
        """All categories above ``category`` (without itself); empty for a category the ontology does not know."""
        found: set[str] = set()
        queue = list(self.categories[category].parents) if category in self.categories else []
        while queue:
            parent = queue.pop()
            if parent not in found:
                found.add(parent)
                queue.extend(self.categories[parent].parents)
        return frozenset(found)

    def descendants(self, category: str) -> frozenset[str]:
        """All categories below ``category`` (without itself)."""
        return self._descendants.get(category, frozenset())

    @cached_property
    def _descendants(self) -> dict[str, frozenset[str]]:
        below: dict[str, set[str]] = {}
        for child in self.categories:
            for ancestor in self.ancestors(child):
                below.setdefault(ancestor, set()).add(child)
        return {name: frozenset(children) for name, children in below.items()}

    def check_categories(self, names: Sequence[str], setting: str) -> None:
        """Refuse names that are no categories.

        Raises
        ------
        MedfilipError
            ``CONFIG_INVALID``, naming the setting and the nearest category.
        """
        unknown = [name for name in names if name not in self.categories]
        if unknown:
            near = difflib.get_close_matches(unknown[0], self.categories, n=1)
            raise MedfilipError(
                ErrorCode.CONFIG_INVALID,
                f"The setting '{setting}' names '{unknown[0]}', which is no category of the ontology.",
                fix=f"Did you mean '{near[0]}'?" if near else "Give ids such as pleural_effusion.",
            )

    def label(self, category: str) -> str:
        """Text of a category for prompts and pages; ``other:<text>`` gives its text."""
        if category in self.categories:
            return self.categories[category].label
        return category.removeprefix("other:")

    def region(self, site: str) -> str:
        """Region of a site; an unknown site is its own region."""
        return self.sites[site].region if site in self.sites else site

    def regions(self, sites: Iterable[str]) -> frozenset[str]:
        """Regions of several sites."""
        return frozenset(self.region(site) for site in sites)

    @cached_property
    def category_of_term(self) -> dict[str, str]:
        """Category of every label and synonym in lower case.

        Labels win over synonyms, and a synonym that several categories share belongs to the first of them.
        """
        found: dict[str, str] = {}
        for category in self.categories.values():
            found.setdefault(category.label.lower(), category.id)
        for category in self.categories.values():
            for term in category.terms:
                found.setdefault(term, category.id)
        return found

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the whole content."""
        return fingerprint(self.model_dump(mode="json"))


@lru_cache(maxsize=1)
def load_ontology() -> Ontology:
    """Load and check the ontology that ships with the package."""
    text = (files("medfilip.findings") / "data" / "ontology.yaml").read_text(encoding="utf-8")
    return Ontology.model_validate(yaml.safe_load(text))
