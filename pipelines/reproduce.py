"""Reproduce: run a published run again from its manifest, and list every difference.

A manifest says what decided a result: settings, fingerprints of inputs, of the code and of everything it carries. The
inputs are looked for by these fingerprints among the runs of the same root and of the places that are given, so that a
moved or copied run is found and a changed one is not. With ``deep`` the inputs are reproduced first, and theirs, as
far as runs of ours made them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint, sha256_bytes
from medfilip.core.settings import load_settings
from medfilip.evaluation.study_truth import Corpus
from medfilip.storage.location import Location
from medfilip.storage.manifest import MANIFEST_NAME, Manifest, read_manifest
from pipelines.job import JOBS, Outcome, code_fingerprint

_SETTING = {"truth": "phantom_truth"}
"""Inputs that a setting of another name gives."""
_DERIVED = frozenset({"exclude_ids"})
"""Settings of which a manifest keeps hashes alone."""
_NOTHING = frozenset({Corpus(None).fingerprint, fingerprint([])})
"""Fingerprints of inputs that were not given."""
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was."""

    what: str
    before: str
    now: str


@dataclass(frozen=True)
class Reproduction:
    """What came of one run.

    Attributes
    ----------
    code_changed
        Whether other code ran than the one that published the run; what differs may be meant.
    metrics
        Name → value before and now.
    inputs
        Reproductions of the inputs, if they were asked for.
    taken
        Inputs that were taken as they are.
    """

    job: str
    original: str
    location: str
    code_changed: bool
    metrics: dict[str, tuple[float | None, float | None]]
    differences: tuple[Difference, ...]
    inputs: tuple[Reproduction, ...] = ()
    taken: tuple[str, ...] = ()

    @property
    def same(self) -> bool:
        """Whether this run and all that were reproduced for it came out as they were."""
        return not self.differences and all(item.same for item in self.inputs)


@dataclass
class Reproducer:
    """Reproduces runs into one root.

    Attributes
    ----------
    root
        Where the new runs go.
    search
        Folders of runs in which inputs are looked for.
    overrides
        ``job.key=value`` settings of single jobs, for places of inputs that are no runs; ``ray.…`` goes to all.
    deep
        Whether inputs are reproduced too.
    tolerance
        Largest difference of a metric that is none.
    """

    root: Location
    search: Sequence[Location]
    overrides: Sequence[str] = ()
    deep: bool = False
    tolerance: float = TOLERANCE
    _known: dict[str, Location] | None = None
    _done: dict[str, Reproduction] = field(default_factory=dict)

    def work(self, run: Location) -> Reproduction:
        """Run a run again and compare.

        Raises
        ------
        MedfilipError
            ``CONFIG_INVALID`` for a job whose manifest does not hold all it takes, naming what is missing;
            ``INPUT_NOT_FOUND`` for an input that no run among those searched has made; and what the job raises.
        """
        manifest = read_manifest(run)
        if manifest.fingerprint in self._done:
            return self._done[manifest.fingerprint]
        overrides = self._overrides(manifest.job)
        given = {item.partition("=")[0] for item in overrides}
        places, inputs, taken = {}, [], []
        for name, wanted in manifest.inputs.items():
            setting = _SETTING.get(name, name)
            if setting in given or wanted in _NOTHING:
                continue
            found = self._runs().get(wanted)
            if found is None:
                raise MedfilipError(
                    ErrorCode.INPUT_NOT_FOUND,
                    f"The input '{name}' of {manifest.job} {run.name} (fingerprint {wanted[:16]}) is in none of the "
                    "places searched.",
                    fix=f"Give it as {manifest.job}.{setting}=PLACE, or the folder of its run with --search.",
                )
            made = self._again(found)
            if made is not None:
                inputs.append(made)
                found = Location.parse(made.location)
            else:
                taken.append(str(found))
            places[setting] = str(found)
        outcome = self._run(manifest, places, overrides)
        done = _compared(
            run,
            manifest,
            Location.parse(outcome.location),
            outcome.manifest,
            self.tolerance,
            tuple(inputs),
            tuple(taken),
        )
        self._done[manifest.fingerprint] = done
        return done

    def _again(self, found: Location) -> Reproduction | None:
        """Reproduce an input; ``None`` if it is to be taken as it is, or what it was made from is not at hand."""
        if not self.deep or not (found / MANIFEST_NAME).exists():
            return None
        try:
            return self.work(found)
        except MedfilipError as error:
            if error.code is not ErrorCode.INPUT_NOT_FOUND:
                raise
            return None

    def _overrides(self, job: str) -> list[str]:
        """Return the settings that are given for a job, without its name in front."""
        return [item.removeprefix(f"{job}.") for item in self.overrides if item.startswith((f"{job}.", "ray."))]

    def _run(self, manifest: Manifest, places: Mapping[str, str], overrides: Sequence[str]) -> Outcome:
        job = JOBS.get(manifest.job)
        if job is None:
            raise MedfilipError(
                ErrorCode.CONFIG_INVALID,
                f"The run is one of '{manifest.job}', which this version does not have.",
                fix="Use the version that made it.",
            )
        module = job.load()
        base = {name: value for name, value in manifest.config.items() if name in module.SETTINGS.model_fields}
        for name in _DERIVED & set(base):
            if base.pop(name) and not any(item.startswith(f"{name}=") for item in overrides):
                raise MedfilipError(
                    ErrorCode.CONFIG_INVALID,
                    f"The manifest holds hashes of '{name}' only.",
                    fix=f"Give {manifest.job}.{name}=FILE.",
                )
        settings = load_settings(
            module.SETTINGS, manifest.job,
            base={**base, **places, "root": str(self.root)}, overrides=overrides, environment={},
        )  # fmt: skip
        outcome = module.run(settings, new_run=True)
        assert outcome is not None
        return outcome

    def _runs(self) -> dict[str, Location]:
        """Return the runs, checkpoints and phantom corpora below the places searched, by what names them as inputs."""
        if self._known is None:
            self._known = {}
            for place in self.search:
                for run, manifest in _published(place):
                    self._known.setdefault(manifest.fingerprint, run)
                    for name, location in _within(run, manifest):
                        self._known.setdefault(name, location)
        return self._known


def _published(place: Location) -> Iterator[tuple[Location, Manifest]]:
    for file in place.children(recursive=True):
        if file.name == MANIFEST_NAME:
            try:
                yield file.parent, read_manifest(file.parent)
            except MedfilipError:
                continue  # not one of ours, or of another version: no input then


def _within(run: Location, manifest: Manifest) -> Iterator[tuple[str, Location]]:
    """Yield what other jobs know by another name than its own: a checkpoint by its hashes, phantoms by their truth."""
    for file in manifest.files:
        if file.path.endswith("/hashes.json"):
            yield sha256_bytes((run / file.path).read_bytes()), run
    if manifest.job == "phantom" and run.scheme == "file":
        corpus = Path(run.path) / "corpus"
        if (corpus / "truth.jsonl").is_file():
            yield Corpus(corpus).fingerprint, Location.parse(str(corpus))


def _compared(
    original: Location, before: Manifest, location: Location, now: Manifest, tolerance: float,
    inputs: tuple[Reproduction, ...], taken: tuple[str, ...],
) -> Reproduction:  # fmt: skip
    found = [
        Difference(f"{kind} {name}", str(old.get(name, "–")), str(new.get(name, "–")))
        for kind, old, new in (
            ("rows of", _rows(before), _rows(now)),
            ("count", before.counts, now.counts),
            ("rejected", before.rejected, now.rejected),
        )
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    metrics = {name: (before.metrics.get(name), now.metrics.get(name)) for name in {**before.metrics, **now.metrics}}
    found += [
        Difference(f"metric {name}", _number(old), _number(new))
        for name, (old, new) in metrics.items()
        if old is None or new is None or abs(old - new) > tolerance
    ]
    return Reproduction(
        job=before.job,
        original=str(original),
        location=str(location),
        code_changed=before.versions.get("code") != code_fingerprint(),
        metrics=metrics,
        differences=tuple(found),
        inputs=inputs,
        taken=taken,
    )


def _rows(manifest: Manifest) -> dict[str, int]:
    return {name: entry.rows for name, entry in manifest.datasets.items()}


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.6g}"
