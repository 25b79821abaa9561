"""What the endpoint counts and measures, for Prometheus.

Ray exports these from every node under the prefix ``ray_medfilip_`` (``ray metrics launch-prometheus``, or the file
``prom_metrics_service_discovery.json`` of the head node). No tag holds a label, a name or anything else of a request.
Without Ray, as in tests and notebooks, they are kept nowhere.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from medfilip.answers import DiagnosedFinding

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
WINDOW = 500
"""Answers that drift is measured over."""
_FEWEST = 50


class EndpointMetrics:
    """The endpoint's own metrics of one replica.

    Parameters
    ----------
    exported
        Whether Ray exports them: the replica of a deployment.
    """

    def __init__(self, *, exported: bool = False) -> None:
        self._exported = exported
        self._made: dict[str, Any] = {}

    @contextmanager
    def stage(self, name: str, timings: dict[str, float] | None = None) -> Iterator[None]:
        """Time a stage of a request; the seconds are added to ``timings`` as well."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - begin
            self._observe("stage_seconds", "time of one request in a stage", seconds, _SECONDS, {"stage": name})
            if timings is not None:
                timings[name] = timings.get(name, 0.0) + seconds

    def answered(self, action: str, status: int, code: str | None) -> None:
        """Count a request by what became of it."""
        tags = {"action": action, "status": str(status), "code": code or ""}
        self._count("requests", "requests by outcome", tags)

    def batch(self, size: int) -> None:
        """Take the size of a batch of images."""
        self._observe("batch_images", "images embedded together", size, _SIZES, {})

    def label_set(self, *, cached: bool) -> None:
        """Count whether the labels of a question were embedded before."""
        self._count("label_sets", "label sets that were asked for", {"cached": str(cached).lower()})

    def findings(self, findings: Sequence[DiagnosedFinding], abstentions: Sequence[str]) -> None:
        """Count decisions and abstentions."""
        for reason in abstentions:
            self._count("abstentions", "studies nothing was decided about", {"reason": reason})
        for decision in {finding.decision for finding in findings}:
            number = sum(finding.decision == decision for finding in findings)
            self._count("findings", "findings by decision", {"decision": decision}, number)

    def drift(self, drift: Mapping[str, float]) -> None:
        """Take how far recent answers are from the reference of the model; see `DriftMonitor`."""
        for kind, value in drift.items():
            self._gauge("drift", "distance of recent answers from the model's reference", value, {"kind": kind})

    def _count(self, name: str, text: str, tags: Mapping[str, str], number: int = 1) -> None:
        if self._exported:
            self._metric("Counter", name, text, tags).inc(number, tags=dict(tags))

    def _gauge(self, name: str, text: str, value: float, tags: Mapping[str, str]) -> None:
        if self._exported:
            self._metric("Gauge", name, text, tags).set(value, tags=dict(tags))

    def _observe(self, name: str, text: str, value: float, bounds: Sequence[float], tags: Mapping[str, str]) -> None:
        if self._exported:
            metric = self._metric("Histogram", name, text, tags, boundaries=list(bounds))
            metric.observe(value, tags=dict(tags))

    def _metric(self, kind: str, name: str, text: str, tags: Mapping[str, str], **more: Any) -> Any:
        if name not in self._made:
            from ray.serve import metrics

            made = getattr(metrics, kind)(f"medfilip_{name}", description=text, tag_keys=tuple(tags), **more)
            self._made[name] = made
        return self._made[name]


class DriftMonitor:
    """How far what a model is shown, and what it says, have moved from its reference.

    ``embedding`` is the Kolmogorov–Smirnov distance of the unfamiliarity of recent studies from the uniform
    distribution that it has on reference images: 0 for studies like those, 1 for studies unlike all of them.
    ``score`` is the mean difference, over categories, between the mean probability of recent studies and the share of
    validation images that had the category.

    Parameters
    ----------
    prevalence
        Category → that share.
    """

    def __init__(self, prevalence: Mapping[str, float]) -> None:
        self._prevalence = prevalence
        self._unfamiliar: deque[float] = deque(maxlen=WINDOW)
        self._probability: dict[str, deque[float]] = {name: deque(maxlen=WINDOW) for name in prevalence}

    def take(self, findings: Sequence[DiagnosedFinding], unfamiliarity: float | None) -> dict[str, float]:
        """Take one answer; return the drift of those that can be told from enough of them."""
        if unfamiliarity is not None:
            self._unfamiliar.append(unfamiliarity)
        for finding in findings:
            if finding.category in self._probability:
                self._probability[finding.category].append(finding.probability)
        told = {}
        if len(self._unfamiliar) >= _FEWEST:
            told["embedding"] = _from_uniform(np.sort(np.array(self._unfamiliar)))
        moved = [
            abs(float(np.mean(values)) - self._prevalence[name])
            for name, values in self._probability.items()
            if len(values) >= _FEWEST
        ]
        if moved:
            told["score"] = float(np.mean(moved))
        return told


def _from_uniform(sorted_N: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    count = len(sorted_N)
    above = np.arange(1, count + 1) / count - sorted_N
    below = sorted_N - np.arange(count) / count
    return float(max(above.max(), below.max()))
