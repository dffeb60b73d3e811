"""The configuration file: what is accepted, and that each mistake names its field."""

import hashlib

import pytest

from crds.errors import InvalidInput
from keymgmt.config import load, parse

GOOD = {
    "tls": {"certificate": "tls.crt", "key": "/etc/tls.key"},
    "dataDir": "data",
    "jurisdiction": "JP",
    "log": {"origin": "keys.example/log", "anchors": ["../anchor"]},
    "tokens": [{"role": "operator", "sha256": hashlib.sha256(b"secret").hexdigest()}],
}


def test_defaults_and_paths(tmp_path):
    config = parse(GOOD, base=tmp_path)
    assert config.tls.certificate == tmp_path / "tls.crt"
    assert str(config.tls.key) == "/etc/tls.key"
    assert config.log.anchors == (tmp_path / "../anchor",)
    assert config.database_url == f"sqlite:///{tmp_path / 'data' / 'keys.sqlite'}"
    assert config.attestation.local_trust_roots == ()
    assert config.attestation.trust_amd
    assert config.hsm.embedded


def test_snake_case_and_json(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(
        '{"tls": {"certificate": "c", "key": "k"}, "data_dir": "d", "jurisdiction": "JP", "log": {"origin": "o"}}'
    )
    assert load(file).data_dir == tmp_path / "d"


def test_tokens_are_known_by_their_digest(tmp_path):
    config = parse(GOOD, base=tmp_path)
    assert config.roles_of("secret") == {"operator"}
    assert config.roles_of("Secret") == config.roles_of("") == frozenset()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"surprise": 1}, "surprise"),
        ({"jurisdiction": "Japan"}, "jurisdiction"),
        ({"listen": {"port": 70000}}, "listen.port"),
        ({"log": {"origin": "has space"}}, "log.origin"),
        ({"tls": {"certificate": "c"}}, "tls.key"),
        ({"tokens": [{"role": "root", "sha256": "0" * 64}]}, "tokens.0.role"),
        ({"tokens": [{"role": "operator", "sha256": "xyz"}]}, "tokens.0.sha256"),
        ({"tokens": [{"role": "operator", "sha256": "0" * 64}, {"role": "auditor", "sha256": "0" * 64}]}, "tokens"),
        ({"hsm": {"embedded": False}}, "hsm"),
        ({"limits": {"bodyBytes": 0}}, "limits.bodyBytes"),
        ({"attestation": {"snp": {"minimumTcb": {"snp": 300}}}}, "attestation.snp.minimumTcb.snp"),
    ],
)
def test_mistakes_name_their_field(tmp_path, change, field):
    with pytest.raises(InvalidInput) as refused:
        parse(GOOD | change, base=tmp_path)
    assert field in refused.value.problem.where


@pytest.mark.parametrize("text", ["{", "- 1", "", "a: !!python/object/apply:os.system ['true']"])
def test_files_that_are_no_configuration(tmp_path, text):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInput):
        load(file)
    with pytest.raises(InvalidInput):
        load(tmp_path / "absent.yaml")
