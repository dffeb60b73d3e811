"""CCEL logs of shared/vectors/eventlog: parsed as their expected JSON, replayed to known registers."""

from __future__ import annotations

import json

import pytest

from keymgmt.attestation import AttestationRefused
from keymgmt.attestation.eventlog import as_claims, boot_claims, check_replay, parse_log, replay
from tests.unit.attestation.conftest import SHARED

LOGS = SHARED / "vectors" / "eventlog"
SHA384 = 0x0C
NAMES = ["CCEL_data_ovmf", "CCEL_data_grub", "CCEL_data_grub_gke"]
# RTMR0 to RTMR3 (registers 1 to 4) of the machines that wrote the logs, as Trustee's tests state them.
REGISTERS = {
    "CCEL_data_ovmf": (
        "8566f998798db09443b244c62de9a3041fb02e2e6936c4396d784bba2e90177329ec5aba3bb484404f2ab9cc90abe193",
        "775b9f6bfe99f8a31396f0d0218e67ffa796d3b96ccf961cbb0deba48c79c00f082cda1a5567c1c16305f1fc210c13c6",
        "94eaf7a7bf398ed8d888c91057ae0261802e4f3df084213a76ca7f0b5055ac9d2241de43cd58d9e8b49c503bbf25f34a",
        "00" * 48,
    ),
    "CCEL_data_grub": (
        "cec0a104f691f60da2387fea3c2de00c4ac035e2bb479ff02edcce69039d9e9907f0b3e55031da3dc7038f423adebd79",
        "6c289e0c62182d41ebe97bdbc9872d10998a08eaa86adcdc684001a363207ee72942c7522cdf00a4bbc3d784bed7b670",
        "08919d017ba0e52cd6d966351c7de16fe76c1d3d3d3da4554239e4c7d16cb8b82a94e7eaea3a0e6e18eb690b999fd31e",
        "00" * 48,
    ),
    "CCEL_data_grub_gke": (
        "bc9945139042cf2cc75caf920aa57f14884ecfd7e893bccc51250c8ce90eb53ce72741e6adaa18183eb1331a87d4544a",
        "c17cb288a4dee302bb9ed8d27257a168f3264ad68cab53757f37eeaa7039657fa887cad65cf910e0fdc435ff110f8a7b",
        "334aeba2c985f8886cea97d1ecffbd512769d528b9a94009583db667ad7d2faa7d37fa145d75b192ceee2d2f10b2eb6d",
        "00" * 48,
    ),
}


def measured(name: str) -> dict[int, bytes]:
    return {index: bytes.fromhex(value) for index, value in enumerate(REGISTERS[name], 1)}


@pytest.mark.parametrize("name", NAMES)
def test_claims_are_the_expected_ones(name: str) -> None:
    log = parse_log((LOGS / name).read_bytes())
    assert as_claims(log) == json.loads((LOGS / f"{name}_out.json").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_replay_gives_the_measured_registers(name: str) -> None:
    log = parse_log((LOGS / name).read_bytes())
    check_replay(log, SHA384, measured(name))
    assert all(value == measured(name)[index] for index, value in replay(log, SHA384).items())


@pytest.mark.parametrize("name", NAMES)
def test_any_other_register_value_is_refused(name: str) -> None:
    log = parse_log((LOGS / name).read_bytes())
    for index in range(1, 5):
        wrong = {**measured(name), index: bytes(47) + b"\x01"}
        with pytest.raises(AttestationRefused) as caught:
            check_replay(log, SHA384, wrong)
        assert (caught.value.problem.reason, caught.value.problem.where) == ("EventLogMismatch", f"register[{index}]")
    # A register that the log extends and nobody measured proves nothing.
    with pytest.raises(AttestationRefused) as caught:
        check_replay(log, SHA384, {1: measured(name)[1]})
    assert caught.value.problem.reason == "EventLogMismatch"


def test_boot_of_a_kernel_without_loader() -> None:
    said = boot_claims(parse_log((LOGS / "CCEL_data_ovmf").read_bytes()), SHA384)
    assert said.secure_boot is False
    assert [one.text for one in said.loaders] == ["VenMedia(1428F772-B64A-441E-B8C3-9EBDD7F893C7,)/File(kernel)"]
    assert said.kernel_cmdline[0].digest.hex().startswith("4230f84885a6f3f3")
    assert said.initrd[0].digest.hex().startswith("b15af9286108d3d8")
    assert said.gpt == ()
    assert said.boot_services_exited
    assert {kind for _, kind, _ in said.others} == {
        "EV_EFI_HANDOFF_TABLES2",
        "EV_PLATFORM_CONFIG_FLAGS",
        "EV_EFI_VARIABLE_BOOT",
    }


def test_boot_by_shim_and_grub_under_secure_boot() -> None:
    said = boot_claims(parse_log((LOGS / "CCEL_data_grub").read_bytes()), SHA384)
    assert said.secure_boot is True
    assert set(said.key_databases) == {"PK", "KEK", "db", "dbx"}
    assert [one.text.rpartition("/")[2] for one in said.loaders] == [
        "File(\\EFI\\BOOT\\BOOTX64.EFI)",
        "File(\\EFI\\BOOT\\fbx64.efi)",
        "File(\\EFI\\ubuntu\\shimx64.efi)",
        "File(\\EFI\\ubuntu\\grubx64.efi)",
        "",  # GRUB starts the kernel from memory
    ]
    assert said.gpt[0].digest.hex().startswith("48446d93d377b9ab")
    assert said.as_dict()["secure_boot"] is True


def test_boot_of_a_unified_kernel_image() -> None:
    said = boot_claims(parse_log((LOGS / "CCEL_data_grub_gke").read_bytes()), SHA384)
    assert said.secure_boot is False
    assert said.kernel[0].digest.hex().startswith("2807a2f1d2")
    assert said.kernel_cmdline[0].digest.hex().startswith("df6024107c")
    assert said.initrd[0].digest.hex().startswith("2b6b103726")
    assert said.firmware[0].text == "Fv(48DB5E17-707C-472D-91CD-1613E7EF51B0)"
