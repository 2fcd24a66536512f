"""Figures for Prometheus: counted as calls come, or read from the running parts when somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
Figures = Mapping[str, tuple[str, float]]
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """One registry per server; label values come from closed sets, so it cannot grow without bound."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._calls = Counter(
            "tableside_http_requests", "HTTP calls", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "tableside_http_seconds",
            "Time per HTTP call",
            ("route",),
            buckets=_BUCKETS,
            registry=self.registry,
        )

    def record(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one call; ``route`` is the template, never the path as sent."""
        self._calls.labels(method if method in _METHODS else "other", route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def watch(
        self,
        figures: Callable[[], Figures],
        refusals: Callable[[], Mapping[str, int]],
    ) -> None:
        """Add what ``figures`` returns as {name: (help, value)}; names ending in ``_total`` are counters."""
        self.registry.register(_Parts(figures, refusals))

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)


class _Parts(Collector):
    def __init__(
        self,
        figures: Callable[[], Figures],
        refusals: Callable[[], Mapping[str, int]],
    ) -> None:
        self._figures = figures
        self._refusals = refusals

    def collect(self) -> Iterable[Metric]:
        for name, (help_, value) in self._figures().items():
            if name.endswith("_total"):
                yield CounterMetricFamily(name.removesuffix("_total"), help_, value)
            else:
                yield GaugeMetricFamily(name, help_, value)
        refused = CounterMetricFamily(
            "tableside_refusals", "Refused frames, ops and calls by code", labels=("code",)
        )
        for code, count in sorted(self._refusals().items()):
            refused.add_metric((code,), count)
        yield refused
