"""TDX, SGX and Nitro guests at the real key service: attest, get a key, and what the log says of it."""

import base64
import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from keymgmt.attestation.collateral.cache import CollateralCache
from keymgmt.attestation.collateral.pieces import Piece
from tests.integration.keymgmt_harness import Custodians, Guest, Service, paths
from tests.unit.attestation.intel_vendor import FMSPC, IntelVendor, Levels, enclave_body, td_body
from tests.unit.attestation.nitro_vendor import NitroVendor

NOW = datetime.now(UTC)
LEVELS = Levels(issued=NOW - timedelta(days=1), expires=NOW + timedelta(days=29))
RULES = {
    "tdx": ("team-t/dataset", f"claims.tdx.mrtd == '{'11' * 48}' && claims.init_data == '{'00' * 48}'", "11" * 48),
    "sgx": ("team-s/dataset", f"claims.sgx.mrenclave == '{'44' * 32}' && claims.init_data == '{'00' * 64}'", "44" * 32),
    "nitro": ("team-n/dataset", f"claims.nitro.pcr0 == '{'01' * 48}' && claims.init_data == ''", "01" * 48),
}


class TeeGuest(Guest):
    """A guest of one of the vendors' TEEs. `fields` change the report or document."""

    def __init__(self, service, tee, vendor, **fields):
        super().__init__(service)
        self.tee, self.vendor, self.fields = tee, vendor, fields

    def auth(self, **changes):
        return super().auth(tee=self.tee, **changes)

    def evidence(self, nonce, jwk=None):
        bound = {"additional-evidence": "{}", "nonce": nonce, "tee-pubkey": jwk or self.jwk}
        data = hashlib.sha384(json.dumps(bound, sort_keys=True, separators=(",", ":")).encode()).digest()
        if self.tee == "nitro":
            now = int(datetime.now(UTC).timestamp() * 1000)
            return {
                "document": base64.b64encode(
                    self.vendor.document(**{"nonce": data, "timestamp": now, **self.fields})
                ).decode()
            }
        body = td_body if self.tee == "tdx" else enclave_body
        quote = self.vendor.quote(body(**{"report_data": data, **self.fields}), 4 if self.tee == "tdx" else 3)
        return {"quote": base64.b64encode(quote).decode()}


@pytest.fixture(scope="module")
def vendors():
    intel = IntelVendor.create()
    return {"tdx": intel, "sgx": intel, "nitro": NitroVendor.create(NOW)}


@pytest.fixture(scope="module")
def service(tmp_path_factory, vendors):
    folder = tmp_path_factory.mktemp("tees")
    (folder / "our-intel.der").write_bytes(vendors["tdx"].root_der)
    (folder / "our-aws.pem").write_bytes(vendors["nitro"].path[0].certificate.public_bytes(Encoding.PEM))
    cache = CollateralCache(folder / "collateral", vendors["tdx"].anchors)
    for tee in ("tdx", "sgx"):
        cache.put(Piece(f"intel/{tee}/{FMSPC}/platform", vendors[tee].collateral(tee, LEVELS), NOW))
    attestation = {
        "collateralCache": str(folder / "collateral"),
        "intelRoots": [str(folder / "our-intel.der")],
        "nitroRoots": [str(folder / "our-aws.pem")],
    }
    with Service(folder / "service", attestation=attestation) as running:
        yield running


@pytest.fixture(scope="module")
def owner(service):
    custodians = Custodians()
    custodians.register(service)
    for key, rule, _ in RULES.values():
        reply = custodians.submit(service, custodians.policy(key, rule=rule))
        assert reply.status_code == 201, reply.text
        custodians.put_key(service, reply.json()["digest"], key)
    return custodians


@pytest.mark.parametrize("tee", ["tdx", "sgx", "nitro"])
def test_a_guest_gets_its_key_and_the_log_names_its_measurement(service, owner, vendors, tee):
    key, _, measurement = RULES[tee]
    guest = TeeGuest(service, tee, vendors[tee])
    reply = guest.attest()
    assert reply.status_code == 200, reply.text
    released = guest.fetch(key)
    assert released.status_code == 200, released.text
    assert len(guest.open(released)) == 32
    entry = service.entries()[-1]
    assert (entry["type"], entry["key"], entry["measurement"]) == ("release", key, measurement)
    assert entry["root"] == ("local:our-aws" if tee == "nitro" else "local:our-intel")
    others = [other for other, _, _ in RULES.values() if other != key]
    assert [guest.fetch(other).status_code for other in others] == [401, 401]


@pytest.mark.parametrize(
    ("tee", "fields", "reason"),
    [
        ("tdx", {"attributes": 1 << 28 | 1}, "DebugAllowed"),
        ("tdx", {"report_data": b"replayed"}, "NonceMismatch"),
        ("sgx", {"flags": 0x7}, "DebugAllowed"),
        ("nitro", {"pcrs": {0: bytes(48)}}, "DebugAllowed"),
        ("nitro", {"nonce": b"replayed"}, "NonceMismatch"),
    ],
)
def test_a_refused_guest_is_in_the_log_with_its_reason(service, owner, vendors, tee, fields, reason):
    assert TeeGuest(service, tee, vendors[tee], **fields).attest().status_code == 401
    entry = service.entries()[-1]
    assert (entry["type"], entry["reason"]) == ("denial", reason)


def test_another_measurement_gets_no_key(service, owner, vendors):
    guest = TeeGuest(service, "tdx", vendors["tdx"], mr_td=b"\x12" * 48)
    assert guest.attest().status_code == 200
    assert guest.fetch(RULES["tdx"][0]).status_code == 401
    assert service.entries()[-1]["reason"] == "RuleNotMet"


def test_a_tee_that_nobody_verifies_gets_no_challenge(service):
    reply = Guest(service).auth(tee="cca")
    assert reply.status_code == 401
    assert "tdx" in reply.json()["detail"]
    assert service.ok("GET", paths.STATUS, role="auditor")["log"]["size"] > 0
