"""Prometheus metrics of the key service. Labels never hold tenants' secrets or unbounded values."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """One set per service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.releases = Counter("kekkai_keys_releases", "Keys delivered to attested guests.", registry=self.registry)
        self.transits = Counter(
            "kekkai_keys_transits", "Operations done for attested guests.", ["operation"], registry=self.registry
        )
        self.denials = Counter(
            "kekkai_keys_denials", "Refused requests, by reason.", ["stage", "reason"], registry=self.registry
        )
        self.attestations = Counter(
            "kekkai_keys_attestations", "Attestations that were accepted.", ["tee"], registry=self.registry
        )
        self.seconds = Histogram(
            "kekkai_keys_request_seconds",
            "Time to answer, by route and status class.",
            ["route", "status"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.log_size = Gauge("kekkai_keys_log_entries", "Entries in the transparency log.", registry=self.registry)
        self.batches = Gauge("kekkai_keys_journal_batches", "Transactions committed.", registry=self.registry)
        self.worker_up = Gauge("kekkai_keys_hsm_worker_up", "1 while the HSM worker answers.", registry=self.registry)
        self.worker_restarts = Gauge(
            "kekkai_keys_hsm_worker_restarts", "Times the HSM worker had to be started again.", registry=self.registry
        )
