"""Reads all signals of one service, from Prometheus or from its pods; what fails is told, not raised."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import Counter as Total

from crds.dataflow import DataFlow, FlowSignal
from crds.errors import KekkaiError
from operators.dataflow.pod_pages import PodPages
from operators.dataflow.prometheus import Prometheus
from operators.dataflow.promql import query
from scheduler.dataflow import Sample
from scheduler.dataflow.samples import Counter

Object = Mapping[str, Any]
READS = Total("kekkai_dataflow_reads", "Reads of signals by how they ended.", ["outcome"])


@dataclass(frozen=True, slots=True)
class Read:
    """Signal → sample (None: nothing to be had), and signal → (reason, message) of what failed."""

    samples: Mapping[str, Sample | None]
    faults: Mapping[str, tuple[str, str]] = field(default_factory=dict)


class SignalReader:
    """`prometheus` None: the operator was started without one, and such signals are missing."""

    def __init__(self, prometheus: Prometheus | None, pages: PodPages | None = None) -> None:
        self._prometheus = prometheus
        self._pages = pages or PodPages()

    async def close(self) -> None:
        await self._pages.close()
        if self._prometheus is not None:
            await self._prometheus.close()

    async def read(
        self,
        flow: DataFlow,
        namespace: str,
        pods: Sequence[Object],
        counters: dict[str, dict[str, Counter]],
        now: float,
    ) -> Read:
        """All signals at once. `counters`: signal → pod uid → counter, kept by the caller between visits."""
        found = await asyncio.gather(*(self._one(one, namespace, pods, counters, now) for one in flow.signals))
        samples: dict[str, Sample | None] = {}
        faults: dict[str, tuple[str, str]] = {}
        for signal, (sample, fault) in zip(flow.signals, found, strict=True):
            samples[signal.name] = sample
            READS.labels("value" if sample is not None else "fault" if fault else "empty").inc()
            if fault is not None:
                faults[signal.name] = fault
        return Read(samples, faults)

    async def _one(
        self,
        signal: FlowSignal,
        namespace: str,
        pods: Sequence[Object],
        counters: dict[str, dict[str, Counter]],
        now: float,
    ) -> tuple[Sample | None, tuple[str, str] | None]:
        if signal.pods is not None:
            sample = await self._pages.read(signal.pods, pods, counters.setdefault(signal.name, {}), now)
            return sample, None
        if signal.prometheus is None:
            return None, ("InvalidInput", "it has no source")
        if self._prometheus is None:
            return None, ("PrometheusNotConfigured", "the operator runs without --prometheus-url")
        try:
            return await self._prometheus.read(query(signal.prometheus, namespace), now), None
        except KekkaiError as error:
            return None, (error.problem.reason, str(error))
