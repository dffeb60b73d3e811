"""Event logs made here: bounds of the parser, readings by type, and what a lying log cannot claim."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keymgmt.attestation import AttestationRefused
from keymgmt.attestation.eventlog import as_claims, boot_claims, check_replay, details, parse_log, replay
from keymgmt.attestation.eventlog import event_types as kinds
from keymgmt.attestation.eventlog.device_path import device_paths
from keymgmt.attestation.eventlog.log import Event

SHA256, SHA384 = 0x0B, 0x0C
SIZES = {SHA256: 32, SHA384: 48}
GLOBAL = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")


def word(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, "little")


def header(
    algorithms: dict[int, int] | None = None, vendor: bytes = b"", signature: bytes = b"Spec ID Event03\0"
) -> bytes:
    sizes = SIZES if algorithms is None else algorithms
    body = signature + word(0) + bytes((0, 2, 0, 2)) + word(len(sizes))
    body += b"".join(word(kind, 2) + word(size, 2) for kind, size in sizes.items()) + bytes([len(vendor)]) + vendor
    return word(0) + word(kinds.NO_ACTION) + bytes(20) + word(len(body)) + body


def digests_of(data: bytes) -> bytes:
    return word(2) + word(SHA256, 2) + hashlib.sha256(data).digest() + word(SHA384, 2) + hashlib.sha384(data).digest()


@dataclass
class Log:
    """A log in the making. `add` measures `covered`, which is the event data unless given."""

    data: bytes = field(default_factory=header)

    def add(self, register: int, kind: int, data: bytes, covered: bytes | None = None) -> Log:
        self.data += word(register) + word(kind) + digests_of(data if covered is None else covered)
        self.data += word(len(data)) + data
        return self


def variable(name: str, value: bytes, guid: bytes = GLOBAL) -> bytes:
    return guid + word(len(name), 8) + word(len(value), 8) + name.encode("utf-16-le") + value


def refusal(call: Any, *arguments: Any) -> str:
    with pytest.raises(AttestationRefused) as caught:
        call(*arguments)
    return caught.value.problem.reason


def test_digests_of_two_algorithms_are_replayed_each() -> None:
    log = parse_log(Log().add(7, kinds.SEPARATOR, bytes(4)).add(7, kinds.EFI_ACTION, b"go").data)
    first = hashlib.sha256(bytes(32) + hashlib.sha256(bytes(4)).digest()).digest()
    assert replay(log, SHA256) == {7: hashlib.sha256(first + hashlib.sha256(b"go").digest()).digest()}
    assert len(replay(log, SHA384)[7]) == 48
    assert refusal(replay, log, 0x0D) == "EventLogAlgorithmUnsupported"
    assert refusal(boot_claims, log, 0x0D) == "EventLogAlgorithmUnsupported"
    check_replay(log, SHA256, {7: replay(log, SHA256)[7], 8: bytes(32)})


def test_no_action_events_are_not_extended() -> None:
    log = parse_log(Log().add(0, kinds.NO_ACTION, b"SP800-155 Event3").data)
    assert replay(log, SHA256) == {}
    assert len(log.events) == 1


def test_a_tpm_started_from_another_locality() -> None:
    log = Log().add(0, kinds.NO_ACTION, b"StartupLocality\0\x03").add(0, kinds.SEPARATOR, bytes(4))
    digest = hashlib.sha256(bytes(4)).digest()
    assert replay(parse_log(log.data), SHA256)[0] == hashlib.sha256(bytes(31) + b"\x03" + digest).digest()
    # Once the register was extended, no event can start it again.
    late = Log().add(0, kinds.SEPARATOR, bytes(4)).add(0, kinds.NO_ACTION, b"StartupLocality\0\x03")
    assert replay(parse_log(late.data), SHA256)[0] == hashlib.sha256(bytes(32) + digest).digest()


def test_a_record_without_the_digest_cannot_be_replayed() -> None:
    data = header() + word(1) + word(kinds.SEPARATOR) + word(1) + word(SHA256, 2) + bytes(32) + word(0)
    log = parse_log(data)
    assert replay(log, SHA256)[1]
    assert refusal(replay, log, SHA384) == "EventLogAlgorithmUnsupported"


def test_the_end_of_a_log() -> None:
    whole = Log().add(1, kinds.SEPARATOR, bytes(4)).data
    for tail in (b"", bytes(8), bytes(500), b"\xff" * 8, b"\xff" * 300):
        assert len(parse_log(whole + tail).events) == 1
    assert refusal(parse_log, whole + bytes(16) + b"\x01") == "EventLogMalformed"
    assert refusal(parse_log, whole + b"\xff" * 16 + bytes(4)) == "EventLogMalformed"
    assert refusal(parse_log, whole + bytes(3)) == "EventLogMalformed"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(100),
        header(signature=b"Spec ID Event02\0") + bytes(8),
        header({}) + bytes(8),
        header({SHA256: 31}) + bytes(8),
        header({0x99: 32}) + bytes(8),
        header({kind: 32 for kind in range(9)}) + bytes(8),
        header()[:-1] + b"\x05" + bytes(2),  # vendor data beyond the event
        header() + word(32) + word(4) + word(0) + word(0),  # register
        header() + word(1) + word(4) + word(3),  # more digests than algorithms
        header() + word(1) + word(4) + word(1) + word(0x0D, 2) + bytes(64) + word(0),  # not announced
        header() + word(1) + word(4) + word(2) + (word(SHA256, 2) + bytes(32)) * 2 + word(0),  # twice
        header() + word(1) + word(4) + digests_of(b"")[:-1],
        header() + word(1) + word(4) + digests_of(b"") + word(5) + b"abcd",
        header() + word(1) + word(4) + digests_of(b"") + word(0xFFFFFFFF),
        header() + (word(1) + word(4) + word(0) + word(0)) * 4097,
        header() + bytes(1 << 20),
    ],
)
def test_malformed_logs_are_refused(data: bytes) -> None:
    assert refusal(parse_log, data) == "EventLogMalformed"


SEPARATOR = (7, kinds.SEPARATOR, bytes(4))


def test_secure_boot_is_believed_only_where_firmware_measured_it() -> None:
    on, off = variable("SecureBoot", b"\x01"), variable("SecureBoot", b"\x00")
    kind = kinds.VARIABLE_DRIVER_CONFIG

    def said(log: Log) -> bool | None:
        return boot_claims(parse_log(log.data), SHA256).secure_boot

    assert said(Log().add(7, kind, on).add(*SEPARATOR)) is True
    assert said(Log().add(7, kind, off).add(*SEPARATOR)) is False
    assert said(Log().add(*SEPARATOR)) is None
    # Event data that no digest covers is what the log's writer likes.
    assert said(Log().add(7, kind, on, covered=off).add(*SEPARATOR)) is None
    # After the separator the operating system extends the register and writes the log.
    assert said(Log().add(*SEPARATOR).add(7, kind, on).add(*SEPARATOR)) is None
    # Also where the log calls the separator something else, and where it says that an error occurred.
    for data in (bytes(4), b"\xff" * 4, b"\x01\0\0\0"):
        disguised = Log().add(7, kinds.EFI_ACTION, b"hello", covered=data)
        assert said(disguised.add(7, kind, on).add(*SEPARATOR)) is None
    # A register that firmware never closed, or that is not firmware's at all.
    assert said(Log().add(7, kind, on)) is None
    for register in (0, 2, 3, 4, 14, 23):
        assert said(Log().add(register, kind, on).add(register, kinds.SEPARATOR, bytes(4))) is None
    # Two values in one log: off.
    assert said(Log().add(7, kind, off).add(7, kind, on).add(*SEPARATOR)) is False
    assert said(Log().add(7, kind, on).add(7, kind, on).add(*SEPARATOR)) is False
    foreign = variable("SecureBoot", b"\x01", guid=bytes(16))
    assert said(Log().add(7, kind, foreign).add(*SEPARATOR)) is None


def test_key_databases_are_the_first_that_firmware_measured() -> None:
    first, second = variable("db", b"keys"), variable("db", b"other keys")
    kind = kinds.VARIABLE_DRIVER_CONFIG
    log = parse_log(Log().add(7, kind, first).add(7, kind, second).add(*SEPARATOR).data)
    assert boot_claims(log, SHA256).key_databases == {"db": hashlib.sha256(first).hexdigest()}
    assert boot_claims(parse_log(Log().add(7, kind, first).data), SHA256).key_databases == {}


def test_kernel_command_line_of_grub_is_proven_text() -> None:
    line = "/vmlinuz root=/dev/vda1 ro"
    proven = Log().add(8, kinds.IPL, f"kernel_cmdline: {line}\0".encode(), covered=line.encode())
    claims = boot_claims(parse_log(proven.data), SHA256)
    assert [one.text for one in claims.kernel_cmdline] == [line]
    claimed = Log().add(8, kinds.IPL, f"kernel_cmdline: {line}\0".encode(), covered=b"/vmlinuz init=/bin/sh")
    claims = boot_claims(parse_log(claimed.data), SHA256)
    assert [one.text for one in claims.kernel_cmdline] == [""]
    assert claims.kernel_cmdline[0].digest == hashlib.sha256(b"/vmlinuz init=/bin/sh").digest()
    command = Log().add(8, kinds.IPL, b"grub_cmd: set root=hd0\0", covered=b"set root=hd0")
    assert boot_claims(parse_log(command.data), SHA256).grub_cmd[0].text == "set root=hd0"


def test_what_is_not_accounted_for_is_listed() -> None:
    log = Log().add(8, kinds.EVENT_TAG, word(1) + word(4) + b"what").add(9, 0x42, b"unknown").add(9, kinds.IPL, b"x")
    others = boot_claims(parse_log(log.data), SHA256).others
    assert [(register, kind) for register, kind, _ in others] == [
        (8, "EV_EVENT_TAG"),
        (9, "UNKNOWN_0x42"),
        (9, "EV_IPL"),
    ]


def test_a_section_counts_only_after_its_name_was_measured() -> None:
    name = b".\0" + "cmdline".encode("utf-16-le") + b"\0\0"
    stub = Log().add(12, kinds.IPL, name, covered=b".cmdline\0").add(12, kinds.IPL, name, covered=b"quiet")
    claims = boot_claims(parse_log(stub.data), SHA256)
    assert [one.digest for one in claims.kernel_cmdline] == [hashlib.sha256(b"quiet").digest()]
    alone = Log().add(12, kinds.IPL, name, covered=b"quiet")
    assert boot_claims(parse_log(alone.data), SHA256).kernel_cmdline == ()


def node(kind: int, sub_kind: int, body: bytes) -> bytes:
    return bytes((kind, sub_kind)) + word(len(body) + 4, 2) + body


END = node(0x7F, 0xFF, b"")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (node(1, 1, b"\x02\x03"), "Pci(2,3)"),
        (node(2, 1, bytes.fromhex("d041030a00000000")), "ACPI(PNP0A03,0)"),
        (node(3, 5, b"\x01\x02"), "USB(1,2)"),
        (node(3, 11, bytes.fromhex("525400123456") + bytes(26) + b"\x01"), "Mac(525400123456,0x01)"),
        (
            node(3, 12, bytes([1, 0, 0, 10, 2, 0, 0, 10, 0, 0, 0, 0, 6, 0, 1]) + bytes(8)),
            "IPv4(10.0.0.2,TCP,Static,10.0.0.1)",
        ),
        (node(3, 21, bytes(8) + b"\x01" * 8), "FibreEx(0x0000000000000000,0x0101010101010101)"),
        (node(3, 23, b"\x01"), "Path(3,23,01)"),
        (node(4, 1, word(0) + bytes(16) + word(7) + bytes(12) + b"\x01\x01"), "HD(0,MBR,0x00000007)"),
        (node(4, 1, word(0) + bytes(32) + b"\x09\x01"), "Path(4,1," + "00" * 36 + "0901)"),
        (node(4, 3, bytes(16) + b"\xab"), "VenMedia(00000000-0000-0000-0000-000000000000,ab)"),
        (node(4, 4, "\\EFI\0".encode("utf-16-le")), "File(\\EFI)"),
        (node(5, 1, b"\x09"), "Path(5,1,09)"),
        (node(1, 1, b"\x02"), "Path(1,1,02)"),
    ],
)
def test_device_path_nodes(body: bytes, text: str) -> None:
    assert device_paths(body + END) == [text]


@pytest.mark.parametrize(
    "data",
    [b"\x01\x01" + word(3, 2) + END, b"\x01\x01" + word(900, 2) + END, b"\x01" * 6, node(1, 1, b"ab") * 65 + END],
)
def test_malformed_device_paths_are_refused(data: bytes) -> None:
    assert refusal(device_paths, data) == "EventLogMalformed"


@pytest.mark.parametrize("kind", sorted(kinds.NAMES))
@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff" * 40, bytes(40)])
def test_event_data_that_do_not_parse_have_no_details(kind: int, data: bytes) -> None:
    said = details(Event(1, kind, (), data))
    assert isinstance(said, dict)
    if kind == kinds.VARIABLE_BOOT and data in (b"", b"\xff", b"\xff" * 40):
        assert said == {}


@given(st.binary(max_size=400))
@settings(max_examples=150, deadline=None)
def test_random_records_end_in_a_typed_error(data: bytes) -> None:
    try:
        log = parse_log(header() + data)
    except AttestationRefused as error:
        assert error.problem.reason == "EventLogMalformed"  # noqa: PT017
    else:
        assert len(as_claims(log)["uefi_event_logs"]) == len(log.events)
        assert boot_claims(log, SHA256).algorithm == "SHA-256"


def test_only_the_replayed_algorithm_proves() -> None:
    """A digest of another bank may be anything: nobody compared it with a register."""
    on = variable("SecureBoot", b"\x01")
    lie = word(2) + word(SHA256, 2) + hashlib.sha256(b"off").digest() + word(SHA384, 2) + hashlib.sha384(on).digest()
    data = header() + word(7) + word(kinds.VARIABLE_DRIVER_CONFIG) + lie + word(len(on)) + on
    log = parse_log(Log(data).add(*SEPARATOR).data)
    assert boot_claims(log, SHA256).secure_boot is None
    assert boot_claims(log, SHA384).secure_boot is True
    assert not log.events[0].digest_matches_event
