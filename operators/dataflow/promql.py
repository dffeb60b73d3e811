"""PromQL for a declared read. The namespace is always the service's own: nobody reads another tenant's metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from crds.dataflow import PrometheusRead
from crds.errors import InvalidInput

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,127}")
_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,255}")
MARK = "kekkai_read"  # label that tells the two answers apart


def query(read: PrometheusRead, namespace: str) -> str:
    """One query with two answers: the value (kekkai_read="value") and when it was scraped last ("at").

    Raises InvalidInput for a name that is no metric or label name: it would change the query's meaning.
    """
    if not _METRIC.fullmatch(read.metric):
        raise InvalidInput(f"{read.metric!r} is no metric name", where="prometheus.metric", fix="write its plain name")
    labels = _selector(read.match_labels, namespace)
    window = f"[{read.window_seconds}s]"
    series = f"{read.metric}_bucket{labels}" if read.read == "quantile" else f"{read.metric}{labels}"
    if read.read == "gauge":
        value = f"sum({series})"
    elif read.read == "rate":
        value = f"sum(rate({series}{window}))"
    else:
        value = f"histogram_quantile({read.quantile_percent / 100:g}, sum by (le) (rate({series}{window})))"
    return f"{_marked(value, 'value')} or {_marked(f'max(timestamp({series}))', 'at')}"


def _selector(labels: Mapping[str, str], namespace: str) -> str:
    matchers = []
    for name, value in sorted(labels.items()):
        if not _LABEL.fullmatch(name) or name == "namespace" or name.startswith("__"):
            raise InvalidInput(
                f"{name!r} cannot be matched", where="prometheus.matchLabels", fix="use a plain label; not namespace"
            )
        matchers.append(f"{name}={json.dumps(value, ensure_ascii=False)}")
    return "{" + ",".join([f"namespace={json.dumps(namespace)}", *matchers]) + "}"


def _marked(expression: str, what: str) -> str:
    return f'label_replace({expression}, "{MARK}", "{what}", "", "")'
