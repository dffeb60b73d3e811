"""`kekkai plan` on saved states: the verdicts, and errors that say what to do."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from api.cli import plan as command
from api.cli.app import app
from crds.errors import InvalidInput, KekkaiError
from scheduler.objects.snapshot import Snapshot
from tests.unit.cli.saved_state import GPU, RUNNING_SINCE, job, state

NOW = datetime.fromisoformat(RUNNING_SINCE).timestamp() + 600


def ask(manifest: dict[str, Any], saved: dict[str, Any], **over: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"namespace": "", "tenant": "", "now": NOW, "boot": 300.0, **over}
    return command.answer(manifest, Snapshot(saved["items"]), **given)


def test_where_it_would_start_now() -> None:
    found = ask(job(pods=2), state())
    assert (found["verdict"], found["pool"], found["reasons"]) == ("StartsNow", "h200", [])
    assert sorted(one["node"] for one in found["placements"]) == ["h200-0", "h200-1"]
    assert found["summary"] == "would start now on 2 nodes of pool h200"
    assert found["evictions"] == found["machineRequests"] == []


def test_when_machines_must_come_first() -> None:
    found = ask(job(pods=3), state(nodes=2, maximum=4), boot=240.0)
    assert found["verdict"] == "StartsLater"
    assert found["machineRequests"] == ["h200-2"]
    assert [one["code"] for one in found["reasons"]] == ["MachinesComing"]
    assert found["estimatedStart"] == "2026-11-24T12:14:00Z"
    assert "240 s after it is asked for" in found["basis"]


def test_when_what_runs_will_have_ended() -> None:
    found = ask(job(pods=2), state(busy=1, limit=3600))
    assert found["verdict"] == "StartsLater"
    assert found["estimatedStart"] == "2026-11-24T13:00:00Z"
    assert found["basis"].startswith("1 of 1 running workloads state a maximum run time")
    assert found["reasons"]


def test_no_start_is_named_when_no_end_is_known() -> None:
    found = ask(job(pods=2), state(busy=1))
    assert (found["verdict"], found["estimatedStart"]) == ("Waits", None)
    assert "taken to run on" in found["basis"]
    assert any(one["nearest"] for one in found["reasons"])


def test_what_the_queue_would_refuse_is_told_with_its_remedy() -> None:
    wrong = job()
    wrong["spec"]["template"]["spec"]["schedulerName"] = "mine"
    found = ask(wrong, state())
    assert found["verdict"] == "Refused"
    assert found["reasons"][0]["code"] == "UnsupportedPlacement"
    assert found["reasons"][0]["nearest"]


def test_settings_of_the_job_count_as_they_would_in_the_cluster() -> None:
    found = ask(
        job(pods=1, labels={"kekkai.dev/priority": "100"}, annotations={"kekkai.dev/accelerators": "H100"}), state()
    )
    assert found["verdict"] == "Waits"
    assert found["reasons"][0]["code"] == "NoPoolFits"


def test_a_workload_with_pod_sets_or_with_a_job_of_its_own() -> None:
    sets = {
        "kind": "Workload",
        "metadata": {"name": "w"},
        "spec": {"podSets": [{"name": "a", "count": 1, "requests": {GPU: "8"}}]},
    }
    assert ask(sets, state(), namespace="aurora-train")["verdict"] == "StartsNow"
    own = {"kind": "Workload", "metadata": {"name": "w"}, "spec": {"job": {"spec": job(pods=2)["spec"]}, "priority": 5}}
    assert len(ask(own, state(), namespace="aurora-train")["placements"]) == 2


def test_nothing_of_the_saved_state_is_changed_by_asking() -> None:
    saved = state(busy=1, limit=60)
    before = json.dumps(saved)
    ask(job(), saved)
    assert json.dumps(saved) == before


@pytest.mark.parametrize(
    ("manifest", "namespace", "part"),
    [
        (job(), "elsewhere", "belongs to no tenant"),
        (job(), "nowhere", "belongs to no tenant"),
        ({"kind": "Workload", "metadata": {"name": "w"}, "spec": {}}, "aurora-train", "says nothing of its pods"),
        ({"kind": "Workload", "metadata": {"name": "w"}}, "aurora-train", "spec is missing"),
        ({"kind": "Job", "metadata": {"name": "w"}, "spec": {"template": 7}}, "aurora-train", "wrong type"),
        ({"kind": "Job", "metadata": 3, "spec": {"template": {}}}, "aurora-train", "wrong type"),
    ],
)
def test_bad_manifests_get_an_error_that_names_the_place(manifest, namespace: str, part: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ask(manifest, state(), namespace=namespace)
    assert part in str(caught.value)
    assert caught.value.problem.fix


def test_the_command_reads_stdin_and_prints_json_or_a_table(tmp_path: Path) -> None:
    saved = tmp_path / "fleet.json"
    saved.write_text(json.dumps(state(busy=2)))
    words = ["plan", "-f", "-", "--offline", str(saved)]
    run = CliRunner().invoke(app, [*words, "-o", "json"], input=yaml.safe_dump(job()), catch_exceptions=False)
    assert json.loads(run.output)["workload"] == "aurora-train/train"
    table = CliRunner().invoke(app, words, input=yaml.safe_dump(job()), catch_exceptions=False).output
    assert "no start can be foreseen" in table
    assert "nearest change" in table


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "not YAML"),
        ("", "no manifest"),
        ("kind: Pod", "cannot plan kind 'Pod'"),
        ("- 1", "no manifest"),
        ("x" * 2_000_000, "larger"),
    ],
)
def test_bad_files_end_in_one_clear_error(tmp_path: Path, text: str, part: str) -> None:
    manifest = tmp_path / "job.yaml"
    manifest.write_text(text)
    with pytest.raises(KekkaiError, match=part):
        CliRunner().invoke(app, ["plan", "-f", str(manifest)], catch_exceptions=False)


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '{"items": 3}', '[{"kind": "Node"}]'])
def test_bad_saved_states_end_in_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "fleet.json").write_text(text)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job()))
    with pytest.raises(InvalidInput) as caught:
        CliRunner().invoke(
            app,
            ["plan", "-f", str(tmp_path / "job.yaml"), "--offline", str(tmp_path / "fleet.json"), "--tenant", "aurora"],
            catch_exceptions=False,
        )
    assert caught.value.problem.fix
