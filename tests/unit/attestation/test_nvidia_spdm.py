"""SPDM reports, opaque data and evidence JSON as bytes: bounds, and what is refused."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crds.errors import KekkaiError
from keymgmt.attestation import AttestationRefused
from keymgmt.attestation.nvidia import parse_evidence, parse_opaque, parse_report
from tests.unit.attestation.nvidia_vendor import MEASUREMENTS, NONCE, Vendor

GPU = Vendor().device()
REPORT = GPU.report()


def refusal(parse: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(AttestationRefused) as caught:
        parse(*arguments, **options)
    return caught.value.problem.reason


def changed(position: int, value: int) -> bytes:
    data = bytearray(REPORT)
    data[position] = value
    return bytes(data)


def test_a_report_is_split_exactly() -> None:
    parsed = parse_report(REPORT)
    assert parsed.nonce == NONCE
    assert parsed.measurements == MEASUREMENTS
    assert len(parsed.record) == 64 * 55
    assert parsed.signed == REPORT[:-96]
    assert (parsed.r, parsed.s) == (int.from_bytes(REPORT[-96:-48], "big"), int.from_bytes(REPORT[-48:], "big"))


@pytest.mark.parametrize(
    ("position", "value", "reason"),
    [
        (0, 0x12, "SpdmVersionUnsupported"),  # request of SPDM 1.2
        (37, 0x12, "SpdmVersionUnsupported"),  # response of SPDM 1.2
        (1, 0xE1, "SpdmMalformed"),  # another request
        (38, 0x61, "SpdmMalformed"),  # another response
        (2, 0x00, "SpdmVersionUnsupported"),  # no signature was asked for
        (3, 0x01, "SpdmVersionUnsupported"),  # one measurement was asked for
        (36, 0x01, "SpdmVersionUnsupported"),  # another key slot
        (41, 63, "SpdmMalformed"),  # number of blocks
        (41, 0, "SpdmMalformed"),
        (42, 0xC1, "SpdmMalformed"),  # record length
        (44, 0x01, "SpdmMalformed"),  # record length beyond the report
        (45, 0, "SpdmMalformed"),  # index 0
        (45, 2, "SpdmMalformed"),  # an index twice
        (45, 255, "SpdmMalformed"),
        (46, 0, "SpdmMalformed"),  # not DMTF's format
        (47, 52, "SpdmMalformed"),  # block size against value size
        (50, 49, "SpdmMalformed"),  # value size
        (50, 255, "SpdmMalformed"),
        (45 + 64 * 55 + 32, 255, "SpdmMalformed"),  # opaque length
    ],
)
def test_fields_out_of_range_are_refused(position: int, value: int, reason: str) -> None:
    assert refusal(parse_report, changed(position, value)) == reason


def test_bounds_of_a_report() -> None:
    assert refusal(parse_report, b"") == "SpdmMalformed"
    assert refusal(parse_report, REPORT[:-1]) == "SpdmMalformed"
    assert refusal(parse_report, REPORT + b"\x01") == "SpdmMalformed"
    assert refusal(parse_report, REPORT + bytes(9)) == "SpdmMalformed"
    assert parse_report(REPORT + bytes(8)).signed == REPORT[:-96]
    assert refusal(parse_report, REPORT + bytes(1 << 16)) == "SpdmMalformed"
    assert refusal(parse_report, GPU.report(measurements={1: bytes(19)})) == "SpdmMalformed"
    assert refusal(parse_report, GPU.report(measurements={1: bytes(65)})) == "SpdmMalformed"
    assert parse_report(GPU.report(measurements={1: bytes(64), 254: bytes(20)})).measurements[254] == bytes(20)


def field(kind: int, data: bytes, length: int | None = None) -> bytes:
    return kind.to_bytes(2, "little") + (len(data) if length is None else length).to_bytes(2, "little") + data


GOOD = field(3, b"550.1\0") + field(6, bytes.fromhex("009f009601000000"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        field(3, b"550.1"),  # no firmware version
        field(6, bytes.fromhex("009f009601000000")),  # no driver version
        GOOD + b"\x01",
        GOOD + field(9, b"ab", 3),
        GOOD + field(9, b"") + field(9, b""),
        GOOD + field(12, bytes(5)),
        GOOD + field(12, bytes(2048)),
        GOOD + field(22, bytes(9)),
        GOOD + field(20, bytes(47)),
        GOOD + field(36, bytes(9)),
        GOOD + b"".join(field(kind, b"") for kind in range(100, 200)),
        field(3, b"550.1\0") + field(6, bytes(7)),
        field(3, b"550.1\0") + field(6, bytes(10)),
    ],
)
def test_malformed_opaque_data_is_refused(data: bytes) -> None:
    assert refusal(parse_opaque, data, switch=False) == "SpdmMalformed"


def test_opaque_fields_are_read_and_unknown_ones_kept() -> None:
    data = (
        GOOD + field(900, b"\x01\x02") + field(21, b"\xaa") + field(36, b"\x07") + field(22, bytes(8) + bytes(range(8)))
    )
    found = parse_opaque(data, switch=False)
    assert (found.driver_version, found.vbios_version) == ("550.1", "96.00.9f.00.01")
    assert found.as_config()["type_900"] == "0102"
    assert found.protected_pcie is True
    assert found.mode == "unknown"
    assert found.pdis == ("0706050403020100",)
    assert found.as_config()["switch_pdi"] == ["00" * 8, "0001020304050607"]
    assert parse_opaque(GOOD, switch=False).protected_pcie is None
    odd = field(3, b"5\xff\x07\0") + field(6, bytes.fromhex("009f009601000000"))
    assert parse_opaque(odd, switch=False).driver_version == "5??"  # text of a device never holds control characters


def entry(**change: Any) -> dict[str, Any]:
    return {**GPU.evidence(), **change}


def test_both_json_forms_and_both_encodings() -> None:
    (one,) = parse_evidence([entry()])
    (two,) = parse_evidence({"device_evidence_list": [entry(evidence=REPORT.hex(), arch="Hopper", uuid="GPU-1")]})
    assert one.architecture == two.architecture == "HOPPER"
    assert two.report == REPORT
    assert one.certificates == two.certificates == GPU.pem


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        [],
        [1],
        "x",
        {"device_evidence_list": {}},
        [entry(arch=None)],
        [entry(arch="H" * 17)],
        [entry(evidence=None)],
        [entry(evidence="=")],
        [entry(evidence="é")],
        [entry(evidence="A" * (1 << 17))],
        [entry(certificate=5)],
        [entry(certificate="*")],
        [entry(certificate="")],
    ],
)
def test_malformed_evidence_is_refused(document: object) -> None:
    assert refusal(parse_evidence, document) == "EvidenceMalformed"


def test_the_number_of_devices_is_bounded() -> None:
    assert refusal(parse_evidence, [entry()] * 33) == "DeviceCountExceeded"


def test_the_error_names_the_device_and_field() -> None:
    with pytest.raises(AttestationRefused) as caught:
        parse_evidence([entry(), entry(certificate=base64.b64encode(b"x").decode() + "?")])
    assert caught.value.problem.where == "nvidia[1].certificate"


@given(st.binary(max_size=600))
@settings(max_examples=150, deadline=None)
def test_random_bytes_end_in_a_typed_error(data: bytes) -> None:
    for parse in (
        parse_report,
        lambda raw: parse_opaque(raw, switch=False),
        lambda raw: parse_opaque(raw, switch=True),
    ):
        try:
            parse(data)
        except KekkaiError as error:
            assert error.problem.reason == "SpdmMalformed"  # noqa: PT017
