"""Export profiles: the coding habits of one annotation project, applied to findings when they are compared with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from medfilip.core.errors import ErrorCode, MedfilipError

Row = Mapping[str, Any]


class Drop(BaseModel):
    """A kind of stated finding that the project's annotators do not code."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    category: str
    when: Literal["always", "without_place"] = "always"

    def fits(self, finding: Row) -> bool:
        """Whether the rule speaks of this finding."""
        if finding["category"] != self.category or finding["certainty"] != "present":
            return False
        return self.when == "always" or not (finding["sites"] or finding["laterality"])


class Profile(BaseModel):
    """Rules of one annotation project."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    drop: tuple[Drop, ...] = ()

    def apply(self, findings: Sequence[Row]) -> list[Row]:
        """Return the findings of one report as the project would code them."""
        return [finding for finding in findings if not any(rule.fits(finding) for rule in self.drop)]


def profile_names() -> list[str]:
    """Return the names of the profiles that ship with the package."""
    folder = files("medfilip.evaluation") / "data" / "profiles"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_profile(name: str) -> Profile:
    """Load a profile by name.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` for a name that is none of `profile_names`.
    """
    if name not in profile_names():
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"There is no export profile '{name}'.",
            fix=f"Use one of: {', '.join(profile_names())}.",
        )
    file = files("medfilip.evaluation") / "data" / "profiles" / f"{name}.yaml"
    return Profile.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
