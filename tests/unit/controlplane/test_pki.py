from __future__ import annotations

import stat
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from local.controlplane.pki import Authority, kubeconfig
from local.controlplane.ports import free_ports


def test_client_certificates_carry_user_and_groups(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki", "ca")
    pair = authority.client("alice", "alice", ("team-a", "people"))
    certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    issuer = x509.load_pem_x509_certificate(authority.files.certificate.read_bytes())
    certificate.verify_directly_issued_by(issuer)
    assert [a.value for a in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["alice"]
    assert {a.value for a in certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)} == {
        "team-a",
        "people",
    }


def test_keys_and_kubeconfigs_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki", "ca")
    pair = authority.server("api", ["127.0.0.1", "localhost"])
    config = kubeconfig(tmp_path / "k", "https://127.0.0.1:1", authority.files.certificate, pair)
    for path in (authority.files.key, pair.key, config):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "pki").stat().st_mode) == 0o700


def test_an_authority_is_made_once(tmp_path: Path) -> None:
    first = Authority(tmp_path, "ca").files.certificate.read_bytes()
    assert Authority(tmp_path, "ca").files.certificate.read_bytes() == first


def test_ports_are_distinct() -> None:
    assert len(set(free_ports(50))) == 50
