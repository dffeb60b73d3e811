"""How signals are read: queries that see one namespace only, replies that are no answer, pages and addresses of pods."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crds.dataflow import PodsRead, PrometheusRead
from crds.errors import InvalidInput
from operators.dataflow.external_metrics import quantity
from operators.dataflow.pod_pages import pod_address, value_of
from operators.dataflow.prometheus import QueryRefused, sample_of
from operators.dataflow.promql import query
from operators.dataflow.selectors import matches


def test_the_query_is_of_the_own_namespace_whatever_is_asked() -> None:
    read = PrometheusRead(metric="up", match_labels={"job": 'a"} or vector(1) or up{x="', "zone": "b\\"})
    said = query(read, "blue")
    assert said.startswith('label_replace(sum(up{namespace="blue",job="a\\"} or vector(1) or up{x=\\"",zone="b\\\\"})')
    assert said.count('namespace="blue"') == 2


@pytest.mark.parametrize("label", ["namespace", "__name__", "a-b", 'x="y",b', ""])
def test_a_label_that_would_change_the_query_is_refused(label: str) -> None:
    with pytest.raises(InvalidInput):
        query(PrometheusRead(metric="up", match_labels={label: "x"}), "blue")


def test_a_name_that_is_no_metric_is_refused() -> None:
    read = PrometheusRead.model_construct(
        metric='up{namespace="green"} or up', match_labels={}, read="gauge", window_seconds=60, quantile_percent=95
    )
    with pytest.raises(InvalidInput):
        query(read, "blue")


@pytest.mark.parametrize(
    ("read", "part"),
    [
        ("gauge", 'sum(m{namespace="n"})'),
        ("rate", 'sum(rate(m{namespace="n"}[30s]))'),
        ("quantile", 'histogram_quantile(0.95, sum by (le) (rate(m_bucket{namespace="n"}[30s])))'),
    ],
)
def test_each_way_of_reading(read: Any, part: str) -> None:
    assert part in query(PrometheusRead(metric="m", read=read, window_seconds=30), "n")


def reply(*rows: tuple[str, float, str]) -> bytes:
    result = [{"metric": {"kekkai_read": what}, "value": [at, value]} for what, at, value in rows]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


def test_a_sample_is_as_old_as_its_scrape_by_prometheus_own_clock() -> None:
    """Its clock is an hour ahead of ours here."""
    sample = sample_of(reply(("value", 4600.0, "7.5"), ("at", 4600.0, "4588")), 1000.0)
    assert sample is not None
    assert (sample.value, sample.at) == (7.5, 988.0)
    assert sample_of(reply(), 1000.0) is None
    unknown = sample_of(reply(("value", 5.0, "NaN")), 1000.0)
    assert unknown is not None
    assert math.isnan(unknown.value)
    assert math.isnan(unknown.at), "when it was scraped is not known, so it cannot be trusted"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"status":"error"}',
        b"null",
        b'{"status":"success","data":{"resultType":"matrix","result":[]}}',
    ],
)
def test_what_is_no_answer_is_refused(body: bytes) -> None:
    with pytest.raises(QueryRefused):
        sample_of(body, 0.0)


@given(st.binary(max_size=200))
def test_no_reply_breaks_the_reader(body: bytes) -> None:
    with suppress(QueryRefused):
        assert sample_of(body, 0.0) is None


@pytest.mark.parametrize(
    ("status", "spec", "address"),
    [
        ({"podIP": "10.1.2.3", "hostIP": "10.0.0.1"}, {}, "10.1.2.3"),
        ({"podIP": "fd00::7"}, {}, "[fd00::7]"),
        ({"podIP": "10.0.0.1", "hostIP": "10.0.0.1"}, {}, None),
        ({"podIP": "10.1.2.3"}, {"hostNetwork": True}, None),
        ({"podIP": "127.0.0.1"}, {}, None),
        ({"podIP": "169.254.169.254"}, {}, None),
        ({"podIP": "metadata.internal"}, {}, None),
        ({}, {}, None),
    ],
)
def test_only_a_pods_own_address_is_called(status: dict[str, str], spec: dict[str, Any], address: str | None) -> None:
    assert pod_address({"metadata": {}, "spec": spec, "status": status}) == address


def test_a_page_is_summed_over_the_series_that_match() -> None:
    page = '# TYPE q gauge\nq{model="a"} 3\nq{model="b"} 4\n'
    assert value_of(page, PodsRead(port=8000, metric="q")) == 7
    assert value_of(page, PodsRead(port=8000, metric="q", match_labels={"model": "b"})) == 4
    assert value_of(page, PodsRead(port=8000, metric="r")) is None
    assert value_of("q NaN\n", PodsRead(port=8000, metric="q")) is None
    assert value_of("no page {{{", PodsRead(port=8000, metric="q")) is None


@pytest.mark.parametrize(
    ("selector", "holds"),
    [
        ("", True),
        ("workload=chat", True),
        ("workload==chat", True),
        ("workload!=chat", False),
        ("workload in (a, chat)", True),
        ("workload notin (a,b),workload", True),
        ("!workload", False),
        ("other", False),
        ("workload=chat,other=x", False),
    ],
)
def test_selectors(selector: str, holds: bool) -> None:
    assert matches(selector, {"workload": "chat"}) is holds


@pytest.mark.parametrize("selector", ["a=(", "a in b", ",", "a=b c", "x" * 5000])
def test_what_is_no_selector_is_refused(selector: str) -> None:
    with pytest.raises(InvalidInput):
        matches(selector, {"workload": "chat"})


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (12.0, "12"), (0.0125, "12m"), (1.5e9, "1500000000")])
def test_a_value_is_an_exact_quantity(value: float, text: str) -> None:
    assert quantity(value) == text


def test_a_value_beyond_a_quantity_is_refused() -> None:
    with pytest.raises(InvalidInput):
        quantity(1e18)
