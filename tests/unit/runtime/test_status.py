"""A status is written only when this manager's own fields differ."""

from operators.runtime.status import differs


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
