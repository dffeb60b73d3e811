"""What a tenant's objects say, and when one counts as being so already."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crds.baseline import SecurityBaselineSpec
from crds.tenant import ContainerDefaults, Owner, Tenant, TenantNamespace, TenantNetwork
from operators.tenants.access import desired_owners
from operators.tenants.limits import desired_limits, desired_quota, quota_in_force
from operators.tenants.namespaces import Split, claimed_namespace, desired_namespace, split
from operators.tenants.network import desired_network
from operators.tenants.ownership import labels, says
from operators.tenants.verdict import ready_condition

Obj = dict[str, Any]


def tenant(*namespaces: str, **spec: Any) -> Tenant:
    base = {"owners": [{"kind": "User", "name": "u"}], "namespaces": [{"name": n} for n in namespaces or ("a",)]}
    return Tenant.parse(
        {"apiVersion": "kekkai.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "t"}, "spec": base | spec}
    )


def namespace(name: str, owner: str | None, going: bool = False) -> Obj:
    meta: Obj = {"name": name, "labels": {"kekkai.dev/tenant": owner} if owner else {}}
    return {"metadata": meta | ({"deletionTimestamp": "x"} if going else {})}


def divide(wanted: Tenant, *existing: Obj) -> Split:
    by_name = {one["metadata"]["name"]: one for one in existing}
    owned = [one for one in existing if one["metadata"]["labels"].get("kekkai.dev/tenant") == "t"]
    return split(wanted, by_name.get, owned)


class TestSplit:
    def test_absent_and_own_namespaces_are_ours(self) -> None:
        found = divide(tenant("a", "b"), namespace("a", "t"))
        assert [one.name for one in found.ours] == ["a", "b"]
        assert found.conflicts == found.surplus == ()

    @pytest.mark.parametrize("owner", [None, "other"])
    def test_what_is_somebody_elses_is_a_conflict(self, owner: str | None) -> None:
        found = divide(tenant("a", "b"), namespace("a", owner))
        assert found.conflicts == ("a",)
        assert [one.name for one in found.ours] == ["b"]

    def test_what_is_not_wanted_any_more_is_surplus_once(self) -> None:
        found = divide(tenant("a"), namespace("old", "t"), namespace("going", "t", going=True), namespace("x", "other"))
        assert found.surplus == ("old",)


class TestNamespace:
    def test_a_claimed_one_takes_no_pods(self) -> None:
        assert claimed_namespace("t", "a")["metadata"]["labels"] == {"kekkai.dev/tenant": "t"}

    def test_ready_is_said_only_when_it_is(self) -> None:
        wanted, baseline = TenantNamespace(name="a"), SecurityBaselineSpec()
        assert "kekkai.dev/ready" not in desired_namespace("t", wanted, baseline, False)["metadata"]["labels"]
        assert desired_namespace("t", wanted, baseline, True)["metadata"]["labels"]["kekkai.dev/ready"] == "true"

    def test_the_tenants_labels_never_win_over_ours(self) -> None:
        hostile = {"kekkai.dev/tenant": "other", "pod-security.kubernetes.io/enforce": "privileged", "team": "x"}
        found = desired_namespace("t", TenantNamespace(name="a", labels=hostile), SecurityBaselineSpec(), False)
        assert found["metadata"]["labels"]["kekkai.dev/tenant"] == "t"
        assert found["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        assert found["metadata"]["labels"]["team"] == "x"


class TestQuota:
    def test_devices_of_classes_that_share_a_resource_add_up(self) -> None:
        quota = [{"accelerator": "H200", "nominal": 8, "borrow": 2}, {"accelerator": "H100", "nominal": 4}]
        classes = {"H200": "nvidia.com/gpu", "H100": "nvidia.com/gpu", "MI300X": "amd.com/gpu"}
        hard = desired_quota("t", "a", tenant(quota=quota).spec, classes)["spec"]["hard"]
        assert hard["requests.nvidia.com/gpu"] == "14"
        assert hard["requests.amd.com/gpu"] == "0"  # no quota of that class: none of it

    def test_the_nine_counts_of_the_multi_tenancy_benchmark(self) -> None:
        hard = desired_quota("t", "a", tenant().spec, {})["spec"]["hard"]
        assert hard.keys() >= {
            *("pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps"),
            *("persistentvolumeclaims", "services.nodeports", "services.loadbalancers"),
            *("requests.cpu", "requests.memory", "requests.ephemeral-storage"),
        }

    def test_it_is_in_force_when_the_status_holds_every_limit_and_count(self) -> None:
        wanted = desired_quota("t", "a", tenant().spec, {})
        hard = wanted["spec"]["hard"]
        assert not quota_in_force(None)
        assert not quota_in_force(wanted)
        used = dict.fromkeys(hard, "0")
        assert not quota_in_force({**wanted, "status": {"hard": {"pods": hard["pods"]}, "used": used}})
        assert not quota_in_force({**wanted, "status": {"hard": dict(hard), "used": {"pods": "0"}}})
        assert quota_in_force({**wanted, "status": {"hard": dict(hard), "used": used}})

    def test_default_requests_and_no_default_limits(self) -> None:
        (limit,) = desired_limits("t", "a", ContainerDefaults())["spec"]["limits"]
        assert set(limit["defaultRequest"]) == {"cpu", "memory", "ephemeral-storage"}
        assert "default" not in limit


class TestNetwork:
    def test_the_deny_comes_first_and_denies_both_ways(self) -> None:
        deny = desired_network("t", "a", TenantNetwork())[0]["spec"]
        assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}

    def test_only_the_tenant_dns_and_named_networks_are_peers(self) -> None:
        policies = desired_network("t", "a", TenantNetwork(egress_cidrs=["203.0.113.0/24"]))
        peers = [
            peer
            for policy in policies
            for side, key in (("ingress", "from"), ("egress", "to"))
            for rule in policy["spec"].get(side, [])
            for peer in rule[key]
        ]
        assert peers == [
            {"namespaceSelector": {"matchLabels": {"kekkai.dev/tenant": "t"}}},
            {"namespaceSelector": {"matchLabels": {"kekkai.dev/tenant": "t"}}},
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}},
            {"ipBlock": {"cidr": "203.0.113.0/24"}},
        ]
        dns = policies[-1]["spec"]["egress"][0]
        assert {port["port"] for port in dns["ports"]} == {53}


def test_a_service_account_is_named_with_its_namespace() -> None:
    owners = [Owner(kind="ServiceAccount", name="ci", namespace="tools"), Owner(kind="Group", name="people")]
    account, group = desired_owners("t", "a", owners)["subjects"]
    assert account == {"kind": "ServiceAccount", "name": "ci", "namespace": "tools"}
    assert group["apiGroup"] == "rbac.authorization.k8s.io"


class TestVerdict:
    plan = Split((TenantNamespace(name="a"), TenantNamespace(name="b")), (), ())

    def test_all_ready(self) -> None:
        assert ready_condition(self.plan, ["a", "b"], {})[:2] == (True, "Isolated")

    def test_the_first_thing_to_mend_is_named(self) -> None:
        pending = ready_condition(self.plan, ["a"], {})
        assert pending[:2] == (False, "IsolationPending")
        assert "b" in pending[2]
        refused = ready_condition(self.plan, ["a"], {"b": "spec.x is bad"})
        assert refused[:2] == (False, "ApplyRefused")
        assert "b: spec.x is bad" in refused[2]
        conflict = ready_condition(Split((), ("c",), ()), [], {})
        assert conflict[:2] == (False, "NamespaceConflict")
        assert "choose another name" in conflict[2]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@given(json_values)
def test_everything_says_itself(value: Any) -> None:
    assert says(copy.deepcopy(value), value)


@given(st.dictionaries(st.text(max_size=5), json_values, max_size=4), st.text(min_size=6, max_size=8), json_values)
def test_fields_of_others_do_not_count_and_missing_ones_do(wanted: Obj, extra: str, value: Any) -> None:
    assert says({**wanted, extra: value}, wanted)
    if value is not None:
        assert not says(wanted, {**wanted, extra: value})


def test_amounts_are_compared_by_value_only_where_they_are_amounts() -> None:
    assert says({"hard": {"cpu": "10k"}}, {"hard": {"cpu": "10000"}}, quantities=True)
    assert not says({"hard": {"cpu": "10k"}}, {"hard": {"cpu": "10000"}})
    assert not says({"hard": {"cpu": "9k"}}, {"hard": {"cpu": "10000"}}, quantities=True)


def test_managed_objects_are_found_by_their_labels() -> None:
    assert labels("t") == {"kekkai.dev/tenant": "t", "app.kubernetes.io/managed-by": "kekkai"}
