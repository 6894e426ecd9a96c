"""What the service counts, in the text format of Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from rewards.base import RewardResult
from rewards.service.load import Load

PATHS = ("/v1/score", "/v1/score_batch", "/v1/verifiers", "/healthz", "/metrics")
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one service, in a registry of their own. Labels take known values only: their number is bounded."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, load: Load) -> None:
        self._registry = CollectorRegistry()
        home = self._registry
        self._requests = Counter("rewards_http_requests", "HTTP requests answered.", ["path", "status"], registry=home)
        self._seconds = Histogram(
            "rewards_http_request_seconds", "From headers to response.", ["path"], buckets=SECONDS, registry=home
        )
        self._results = Counter("rewards_results", "Completions graded.", ["answer_type", "status"], registry=home)
        self._hung_up = Counter(
            "rewards_clients_hung_up", "Requests whose client left before the answer.", registry=home
        )
        for name, help_text, read in (
            ("rewards_completions_in_flight", "Completions admitted and not yet graded.", lambda: load.completions),
            ("rewards_body_bytes_held", "Bytes of bodies being read or graded.", lambda: load.held_bytes),
            ("rewards_draining", "1 while the service shuts down.", lambda: load.draining),
        ):
            Gauge(name, help_text, registry=home).set_function(read)

    def request(self, path: str, status: int, seconds: float) -> None:
        known = path if path in PATHS else "other"
        self._requests.labels(known, str(status)).inc()
        self._seconds.labels(known).observe(seconds)

    def results(self, graded: Iterable[tuple[str, RewardResult]]) -> None:
        """Count (answer type, result) pairs; the answer types are known ones."""
        for answer_type, result in graded:
            self._results.labels(answer_type, result.status).inc()

    def hung_up(self) -> None:
        self._hung_up.inc()

    def render(self) -> bytes:
        return generate_latest(self._registry)
