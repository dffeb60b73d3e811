"""A status is written only when this manager's own fields differ."""

from operators.runtime import Stores
from operators.runtime.status import change_of, differs, patch_status


def obj(status: dict, stated: list[str]) -> dict:
    fields = {"f:status": {f"f:{name}": {} for name in stated}}
    entry = {"manager": "me", "operation": "Apply", "subresource": "status", "fieldsV1": fields}
    return {"metadata": {"managedFields": [entry]}, "status": status}


def test_anothers_fields_do_not_count() -> None:
    assert not differs(obj({"mine": 1, "theirs": 2}, ["mine"]), {"mine": 1}, "me")


def test_a_changed_field_counts() -> None:
    assert differs(obj({"mine": 1}, ["mine"]), {"mine": 2}, "me")


def test_a_field_that_is_no_longer_stated_counts() -> None:
    assert differs(obj({"mine": 1, "admission": {}}, ["mine", "admission"]), {"mine": 1}, "me")


def test_an_object_without_a_status_differs() -> None:
    assert differs({"metadata": {}}, {"mine": 1}, "me")


class Recorder:
    """Stands for the cluster: keeps the patches and answers with the object."""

    def __init__(self) -> None:
        self.patches: list[dict] = []

    async def merge_patch(self, resource, name, patch, manager, namespace=None, subresource="") -> dict:
        assert subresource == "status"
        self.patches.append(patch)
        return {"kind": "Workload", "metadata": {"name": name, "namespace": namespace, "resourceVersion": "8"}}


def test_a_change_is_what_differs_in_the_fields_that_are_owned() -> None:
    present = {"conditions": [1], "admission": {"a": 1, "b": 2}, "reasons": [3], "theirs": 4}
    found = change_of(
        {"status": present}, {"conditions": [1], "admission": {"a": 5}}, {"conditions", "admission", "reasons"}
    )
    assert found == {"admission": {"a": 5, "b": None}, "reasons": None}
    assert change_of({"status": {"mine": 1, "theirs": 2}}, {"mine": 1}, {"mine"}) == {}
    assert change_of({}, {"mine": 1}, {"mine"}) == {"mine": 1}


async def test_a_patch_is_about_this_very_version() -> None:
    cluster = Recorder()
    meta = {"name": "w", "namespace": "a", "uid": "u", "resourceVersion": "7"}
    await patch_status(cluster, Stores(), {"kind": "Workload", "metadata": meta}, {"reasons": None}, "me")
    assert cluster.patches == [{"metadata": {"resourceVersion": "7", "uid": "u"}, "status": {"reasons": None}}]
