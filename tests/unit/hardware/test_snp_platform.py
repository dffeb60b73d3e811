"""The emulated SNP platform: real formats, trusted only by its own root, measured code."""

from __future__ import annotations

import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from keymgmt.attestation import AttestationRefused, SnpPolicy, TrustRoots, snp_evidence, verify_snp
from keymgmt.attestation.kbs_evidence import parse_kbs_evidence
from keymgmt.guest.errors import EvidenceUnavailable
from keymgmt.guest.tsm import TsmDevice, parse_certificate_table, write_certificate_table
from local.hardware.snp import launch
from local.hardware.snp.platform import SnpPlatform


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> SnpPlatform:
    return SnpPlatform(tmp_path_factory.mktemp("snp"))


def test_a_guest_gets_verifiable_evidence_through_configfs_tsm(platform: SnpPlatform, tmp_path: Path) -> None:
    roots = TrustRoots.from_directory(platform.trust_root)
    with platform.launch("node-1", tmp_path / "tsm", host_data=b"\x05" * 32) as guest:
        evidence = TsmDevice(guest.root).report(b"\x09" * 48)
    stated = parse_kbs_evidence("snp", snp_evidence(evidence.report, evidence.certificates))
    claims = verify_snp(stated.report, stated.certificates, roots, SnpPolicy(), datetime.now(UTC), b"\x09" * 48)
    assert [kind for kind, _ in evidence.certificates] == ["VCEK", "ASK", "ARK"]
    assert claims.report.measurement == launch.launch_measurement()
    assert claims.report.host_data == b"\x05" * 32
    assert (claims.report.version, claims.report.vmpl, claims.root) == (3, 0, "local:trust-root")
    assert not (tmp_path / "tsm").exists()  # powered off


def test_many_reports_from_one_guest(platform: SnpPlatform, tmp_path: Path) -> None:
    with platform.launch("node-1", tmp_path / "tsm") as guest:
        device = TsmDevice(guest.root)
        reports = [device.report(bytes((index,))).report for index in range(8)]
    assert [report[0x50] for report in reports] == list(range(8))
    assert len({report[0x140:0x160] for report in reports}) == 1  # one guest, one report id


def test_debug_and_vmpl_are_the_hypervisors_choice_and_refused(platform: SnpPlatform, tmp_path: Path) -> None:
    roots = TrustRoots.from_directory(platform.trust_root)
    reasons = []
    for number, options in enumerate(({"debug": True}, {"vmpl": 1})):
        with platform.launch("node-1", tmp_path / str(number), **options) as guest:  # type: ignore[arg-type]
            evidence = TsmDevice(guest.root).report(b"x")
        with pytest.raises(AttestationRefused) as caught:
            verify_snp(
                evidence.report, [der for _, der in evidence.certificates], roots, SnpPolicy(), datetime.now(UTC), None
            )
        reasons.append(caught.value.problem.reason)
    assert reasons == ["DebugAllowed", "VmplNotAllowed"]


def test_each_host_has_its_own_lasting_chip(platform: SnpPlatform) -> None:
    again = SnpPlatform(platform.data_dir)  # as after a restart
    first, second = platform.chip("node-1"), platform.chip("node-2")
    assert first.chip_id != second.chip_id
    assert again.chip("node-1").chip_id == first.chip_id
    assert again.chip("node-1").key.private_numbers() == first.key.private_numbers()
    assert again.authority.ark.der == platform.authority.ark.der


def test_the_amd_roots_do_not_cover_emulated_hardware(platform: SnpPlatform, tmp_path: Path) -> None:
    with platform.launch("node-1", tmp_path / "tsm") as guest:
        evidence = TsmDevice(guest.root).report(b"x")
    with pytest.raises(AttestationRefused) as caught:
        verify_snp(
            evidence.report,
            [der for _, der in evidence.certificates],
            TrustRoots.builtin_amd(),
            SnpPolicy(),
            datetime.now(UTC),
            None,
        )
    assert caught.value.problem.reason == "RootUntrusted"


def test_measurement_follows_command_line_and_code(tmp_path: Path) -> None:
    plain = launch.launch_measurement()
    assert len(plain) == 48
    assert launch.launch_measurement() == plain
    assert launch.launch_measurement("init=/bin/sh") != plain
    copy = tmp_path / "repository"
    for source in launch.agent_files():
        target = copy / source.relative_to(launch.REPOSITORY)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    assert launch.launch_measurement(repository=copy) == plain
    agent = copy / "keymgmt" / "guest" / "agent.py"
    agent.write_text(agent.read_text() + "\n# one more line\n")
    assert launch.launch_measurement(repository=copy) != plain


def test_all_of_our_code_that_a_guest_loads_is_measured() -> None:
    program = (
        "import sys, api.cli.guest, keymgmt.guest.agent, keymgmt.guest.kbs_client, keymgmt.guest.tsm\n"
        "rooms = ('crds', 'scheduler', 'keymgmt', 'operators', 'api', 'local')\n"
        "print('\\n'.join(m.__file__ for n, m in sys.modules.items()\n"
        "                if n.split('.')[0] in rooms and getattr(m, '__file__', None)))\n"
        "heavy = {'kubernetes', 'kopf', 'fastapi', 'pydantic', 'sqlalchemy', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = {Path(line) for line in done.stdout.split()}
    assert Path(launch.REPOSITORY, "keymgmt/guest/agent.py") in loaded
    assert loaded <= set(launch.agent_files())


def test_certificate_table() -> None:
    certificates = [("VCEK", b"leaf"), ("ASK", b"intermediate"), ("ARK", b"root")]
    table = write_certificate_table(certificates)
    assert parse_certificate_table(table) == certificates
    assert parse_certificate_table(b"") == []
    for broken in (table[:-1], table[:24], b"\x01" * 24, table[:16] + b"\xff\xff\xff\xff" + table[20:]):
        with pytest.raises(EvidenceUnavailable):
            parse_certificate_table(broken)


def test_no_device_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(EvidenceUnavailable) as caught:
        TsmDevice(tmp_path / "absent").report(b"x")
    assert "confidential guest" in caught.value.problem.fix


def test_a_second_writer_is_noticed(platform: SnpPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever else writes `inblob` changes the report; `generation` and the data give it away."""
    with platform.launch("node-1", tmp_path / "tsm") as guest:
        device = TsmDevice(guest.root)
        write = Path.write_bytes

        def intrude(path: Path, data: bytes) -> int:
            return write(path, b"\x66" * 64 if path.name == "inblob" else data)

        monkeypatch.setattr(Path, "write_bytes", intrude)
        with pytest.raises(EvidenceUnavailable):
            device.report(b"\x01")
