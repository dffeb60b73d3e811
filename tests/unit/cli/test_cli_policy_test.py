"""`kekkai keys policy test`: a policy tried on evidence that a guest recorded, without a key service."""

import hashlib
import json

import pytest
from typer.testing import CliRunner

from api.cli.keys import app
from keymgmt.guest.agent import recorded_evidence
from keymgmt.guest.tsm import TsmDevice
from local.hardware.snp.platform import SnpPlatform

INIT_DATA = 'version = "0.1.0"\nalgorithm = "sha256"\n[data]\n"agent" = "deny"\n'


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    return SnpPlatform(tmp_path_factory.mktemp("snp"))


@pytest.fixture(scope="module")
def recorded(platform, tmp_path_factory):
    """(file, claims that the report makes)."""
    folder = tmp_path_factory.mktemp("evidence")
    digest = hashlib.sha256(INIT_DATA.encode()).digest()
    with platform.launch("node-1", folder / "tsm", host_data=digest) as guest:
        body = recorded_evidence(TsmDevice(guest.root), INIT_DATA)
    file = folder / "evidence.json"
    file.write_text(json.dumps(body))
    return file, {"init_data": digest.hex()}


def run(tmp_path, platform, evidence, rule, *options, **changes):
    policy = {
        "apiVersion": "kekkai.dev/release-policy/v1",
        "tenant": "aurora",
        "keys": ["aurora-train/dataset"],
        "rule": rule,
        "maxReleases": 2,
        "notBefore": "2026-01-01T00:00:00Z",
        "notAfter": "2100-01-01T00:00:00Z",
        "jurisdiction": "JP",
        "replaces": None,
    } | changes
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(policy))
    words = ["policy", "test", str(file), "--evidence", str(evidence), "--trust-root", str(platform.trust_root)]
    return CliRunner().invoke(app, [*words, *options])


def measured(evidence):
    """What the evidence says was launched, read from the report itself (offset 0x90, 48 bytes)."""
    from keymgmt.attestation.kbs_evidence import parse_kbs_evidence

    body = json.loads(evidence.read_text())
    report = parse_kbs_evidence("snp", body["tee-evidence"]["primary_evidence"]).report
    return report[0x90:0xC0].hex()


def test_a_policy_that_fits_would_release(tmp_path, platform, recorded):
    evidence, claims = recorded
    rule = f"claims.snp.measurement == '{measured(evidence)}' && claims.init_data == '{claims['init_data']}'"
    done = run(tmp_path, platform, evidence, rule, "-o", "json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["allowed"]
    assert [one["holds"] for one in found["conditions"]] == [True, True]
    assert found["claims"]["tee"] == "snp"


def test_what_differs_is_told_with_both_values(tmp_path, platform, recorded):
    evidence, claims = recorded
    rule = f"claims.snp.measurement == '{'00' * 48}' && claims.init_data == '{claims['init_data']}'"
    done = run(tmp_path, platform, evidence, rule)
    assert done.exit_code == 1
    assert "refused: RuleNotMet" in done.output
    assert "✗" in done.output
    assert "✓" in done.output
    found = json.loads(run(tmp_path, platform, evidence, rule, "-o", "json").output)
    assert measured(evidence) in found["conditions"][0]["seen"]


@pytest.mark.parametrize(
    ("options", "changes", "reason"),
    [
        (["--used", "2"], {}, "RunCountExhausted"),
        (["--at", "2025-01-01T00:00:00Z"], {}, "CertificateNotYetValid"),
        ([], {"notAfter": "2026-02-01T00:00:00Z"}, "PolicyExpired"),
    ],
)
def test_time_and_count_are_looked_at(tmp_path, platform, recorded, options, changes, reason):
    evidence, claims = recorded
    rule = f"claims.snp.measurement == '{measured(evidence)}' && claims.init_data == '{claims['init_data']}'"
    done = run(tmp_path, platform, evidence, rule, "-o", "json", *options, **changes)
    assert done.exit_code == 1, done.output
    assert json.loads(done.output)["reason"] == reason


def test_evidence_that_does_not_convince_is_refused_as_the_service_would(tmp_path, platform, recorded):
    evidence, claims = recorded
    body = json.loads(evidence.read_text())
    body["runtime-data"]["nonce"] = "A" * 44
    changed = tmp_path / "evidence.json"
    changed.write_text(json.dumps(body))
    rule = f"claims.snp.measurement == 'x' && claims.init_data == '{claims['init_data']}'"
    done = run(tmp_path, platform, changed, rule, "-o", "json")
    assert done.exit_code == 1
    found = json.loads(done.output)
    assert found["reason"] == "NonceMismatch"
    assert found["claims"] == {}


def test_a_key_that_the_policy_does_not_name_is_a_mistake(tmp_path, platform, recorded):
    rule = "claims.snp.measurement == 'x' && claims.init_data == 'y'"
    done = run(tmp_path, platform, recorded[0], rule, "--key", "other/key")
    assert "the policy is not for other/key" in str(done.exception)
