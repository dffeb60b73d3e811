"""Fetchers against a server on this machine that answers as AMD's KDS and Intel's PCS do."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from typer.testing import CliRunner

from api.cli.collateral import collateral as cli
from crds.errors import InvalidInput
from keymgmt.attestation import TrustRoots, parse_report
from keymgmt.attestation.collateral.amd_kds import AmdKds
from keymgmt.attestation.collateral.cache import CollateralCache
from keymgmt.attestation.collateral.fetch import Fetcher
from keymgmt.attestation.collateral.intel_pcs import signed_text
from keymgmt.attestation.collateral.pieces import Piece
from keymgmt.attestation.collateral.vendor_client import CollateralUnavailable, VendorClient
from keymgmt.attestation.intel import IntelCollateral
from keymgmt.attestation.report import Tcb
from tests.unit.attestation.conftest import chain, vector
from tests.unit.attestation.intel_vendor import FMSPC, NOW, IntelVendor, Levels

TDX = f"intel/tdx/{FMSPC}/platform"
Answer = tuple[int, dict[str, str], bytes]


class Server:
    """Answers GETs by a table of path → answers (the last one repeats) and notes what was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.asked: list[tuple[str, dict[str, list[str]]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                outer.asked.append((parts.path, parse_qs(parts.query)))
                queue = outer.answers.get(parts.path, [(404, {}, b"")])
                status, headers, body = queue.pop(0) if len(queue) > 1 else queue[0]
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "transfer" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                    return
                self.end_headers()
                for byte in body:  # drips until the client has had enough
                    try:
                        self.wfile.write(bytes((byte,)))
                        self.wfile.flush()
                    except OSError:
                        return
                    time.sleep(0.02)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


@pytest.fixture(scope="module")
def vendor() -> IntelVendor:
    return IntelVendor.create()


def serve_intel(server: Server, vendor: IntelVendor, levels: Levels | None = None) -> dict[str, str]:
    """Answer as PCS version 4 does: signed texts in JSON, chains URL-encoded in headers."""
    made = json.loads(vendor.collateral("tdx", levels or Levels()))

    def answer(member: str, part: str, header: str) -> Answer:
        body = f'{{"{member}":{made[part]},"signature":"{made[part + "_signature"]}"}}'
        return 200, {header: quote(made[f"{part}_issuer_chain"])}, body.encode()

    crl_chain = {"SGX-PCK-CRL-Issuer-Chain": quote(made["pck_crl_issuer_chain"])}
    server.answers |= {
        "/tdx/certification/v4/tcb": [answer("tcbInfo", "tcb_info", "TCB-Info-Issuer-Chain")],
        "/tdx/certification/v4/qe/identity": [
            answer("enclaveIdentity", "qe_identity", "SGX-Enclave-Identity-Issuer-Chain")
        ],
        "/sgx/certification/v4/pckcrl": [(200, crl_chain, bytes.fromhex(made["pck_crl"]))],
        "/IntelSGXRootCA.der": [(200, {}, bytes.fromhex(made["root_ca_crl"]))],
    }
    return {"intel-pcs": server.url, "intel-certificates": server.url}


def test_intel_collateral_is_put_together_byte_for_byte(server: Server, vendor: IntelVendor) -> None:
    piece = Fetcher(serve_intel(server, vendor)).fetch(TDX, NOW)
    assert piece.name == TDX
    assert IntelCollateral.parse(piece.body).authenticate(vendor.anchors).root == "local:test"
    assert server.asked[0] == ("/tdx/certification/v4/tcb", {"fmspc": [FMSPC], "update": ["standard"]})
    assert server.asked[2] == ("/sgx/certification/v4/pckcrl", {"ca": ["platform"], "encoding": ["der"]})


def test_what_is_not_authentic_is_fetched_but_not_kept(server: Server, vendor: IntelVendor, tmp_path: Path) -> None:
    piece = Fetcher(serve_intel(server, IntelVendor.create())).fetch(TDX, NOW)
    with pytest.raises(Exception, match="not pinned"):
        CollateralCache(tmp_path, vendor.anchors).put(piece)
    assert list(tmp_path.rglob("*.json")) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"tcbInfo":{}}',
        b'{"tcbInfo":{},"signature":7}',
        b'{"tcbInfo":{},"signature":"","x":1}',
        b'{"signature":"\\"tcbInfo\\":","tcbInfo" : {}}',
        b"\xff",
    ],
)
def test_answers_that_are_not_signed_texts(body: bytes) -> None:
    with pytest.raises(CollateralUnavailable):
        signed_text(body, "tcbInfo")


def test_signed_text_keeps_the_exact_bytes() -> None:
    inner = '{"a": 1,  "b":"x"}'
    assert signed_text(f'{{"tcbInfo": {inner}, "signature":"00"}}'.encode(), "tcbInfo") == (inner, "00")


def test_a_missing_chain_header(server: Server, vendor: IntelVendor) -> None:
    services = serve_intel(server, vendor)
    status, _, body = server.answers["/tdx/certification/v4/tcb"][0]
    server.answers["/tdx/certification/v4/tcb"] = [(status, {}, body)]
    with pytest.raises(CollateralUnavailable, match="tcb-info-issuer-chain"):
        Fetcher(services).fetch(TDX, NOW)


def test_amd_pieces_by_name(server: Server, tmp_path: Path) -> None:
    report = parse_report(vector("trustee-test-report.bin"))
    parts, vcek = chain("milan"), vector("trustee-test-vcek.der")
    chip, tcb = report.chip_id.hex(), Tcb.decode(report.reported_tcb, "Milan")
    server.answers = {
        "/vcek/v1/Milan/cert_chain": [(200, {}, parts["ask"] + parts["ark"])],
        "/vlek/v1/Milan/cert_chain": [(200, {}, parts["asvk"] + parts["ark"])],
        f"/vcek/v1/Milan/{chip}": [(200, {}, vcek)],
        "/vcek/v1/Milan/crl": [(200, {}, b"crl")],
    }
    fetcher, cache = Fetcher({"amd-kds": server.url}), CollateralCache(tmp_path)
    names = ("amd/vcek-chain/Milan", "amd/vlek-chain/Milan", f"amd/vcek/Milan/{chip}/{report.reported_tcb.hex()}")
    for name in names:
        assert cache.put(fetcher.fetch(name, NOW))
    assert fetcher.fetch("amd/crl/Milan", NOW) == Piece("amd/crl/Milan", b"crl", NOW)
    asked = dict(server.asked)[f"/vcek/v1/Milan/{chip}"]
    assert asked == {
        "blSPL": [f"{tcb.bootloader:02d}"],
        "teeSPL": [f"{tcb.tee:02d}"],
        "snpSPL": [f"{tcb.snp:02d}"],
        "ucodeSPL": [f"{tcb.microcode:02d}"],
    }
    # With the folder as collateral, a report that comes without certificates finds its chain.
    roots = TrustRoots.builtin_amd(tmp_path)
    assert roots.chain_for(report, ()).root_label == "amd"


def test_a_turin_vcek_is_asked_for_by_eight_bytes_and_fmc(server: Server) -> None:
    with VendorClient(server.url, attempts=1) as client, pytest.raises(CollateralUnavailable, match="404"):
        AmdKds(client).vcek("Turin", b"\xab" * 8 + bytes(56), Tcb(1, 2, 3, 4, fmc=5), NOW)
    path, query = server.asked[0]
    assert path == f"/vcek/v1/Turin/{'ab' * 8}"
    assert query["fmcSPL"] == ["05"]


def test_a_busy_service_is_asked_again_as_it_says(server: Server) -> None:
    waits: list[float] = []
    server.answers["/x"] = [(429, {"Retry-After": "7"}, b""), (503, {}, b""), (200, {}, b"yes")]
    with VendorClient(server.url, sleep=waits.append) as client:
        assert client.get("/x").body == b"yes"
    assert waits == [7.0, 2.0]
    server.answers["/x"] = [(429, {"Retry-After": "9999"}, b"")]
    waits.clear()
    client = VendorClient(server.url, sleep=waits.append, patience=5)
    with client, pytest.raises(CollateralUnavailable, match="429"):
        client.get("/x")
    assert waits == [5.0, 5.0]


def test_a_refusal_is_not_asked_again(server: Server) -> None:
    server.answers["/x"] = [(302, {"Location": "/y"}, b"")]
    with VendorClient(server.url, sleep=lambda _: None) as client, pytest.raises(CollateralUnavailable, match="302"):
        client.get("/x")
    assert [path for path, _ in server.asked] == ["/x"]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((200, {}, bytes(5000)), "larger"),
        ((200, {"Content-Encoding": "gzip"}, b"x"), "compressed"),
        ((200, {"X-Long": "y" * 20000}, b"x"), "larger"),
    ],
)
def test_replies_out_of_bounds(server: Server, answer: Answer, told: str) -> None:
    server.answers["/x"] = [answer]
    with VendorClient(server.url, attempts=1) as client, pytest.raises(CollateralUnavailable, match=told):
        client.get("/x", limit=4096)


def test_a_server_that_drips_is_given_up(server: Server) -> None:
    server.answers["/x"] = [(200, {"transfer": "drip"}, bytes(2000))]
    client = VendorClient(server.url, attempts=1, timeout=0.2)
    with client, pytest.raises(CollateralUnavailable, match="ReadTimeout"):
        client.get("/x")


def test_nobody_answers() -> None:
    client = VendorClient("http://127.0.0.1:9", attempts=2, sleep=lambda _: None)
    with client, pytest.raises(CollateralUnavailable, match="ConnectError"):
        client.get("/x")


@pytest.mark.parametrize("url", ["http://kdsintf.amd.com", "ftp://127.0.0.1", "kdsintf.amd.com", "file:///x"])
def test_only_https_leaves_this_machine(url: str) -> None:
    with pytest.raises(InvalidInput, match="https"):
        VendorClient(url)


def test_names_without_a_fetcher() -> None:
    with pytest.raises(InvalidInput, match="no fetcher"):
        Fetcher().fetch("nvidia/rim/NV_GPU_CERT", NOW)
    with pytest.raises(InvalidInput, match="names no collateral"):
        Fetcher().fetch("intel/tdx", NOW)


def test_the_commands(server: Server, vendor: IntelVendor, tmp_path: Path) -> None:
    root = tmp_path / "root.der"
    root.write_bytes(vendor.root_der)
    services = serve_intel(server, vendor)

    def run(command: str, *arguments: str, folder: str = "one") -> list[dict[str, object]]:
        shared = ["--dir", str(tmp_path / folder), "--intel-root", str(root), "-o", "json"]
        result = CliRunner().invoke(cli, [command, *shared, *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        told = json.loads(result.stdout)
        return told if isinstance(told, list) else [told]

    options = [word for name, url in services.items() for word in ("--service", f"{name}={url}")]
    assert run("fetch", *options, TDX)[0]["state"] in {"current, kept", "expired, kept"}
    assert run("fetch", *options, TDX)[0]["state"] in {"current, was at hand", "expired, was at hand"}
    assert [row["name"] for row in run("list")] == [TDX]
    bundle = tmp_path / "bundle.json"
    exported = run("export", "--out", str(bundle))[0]
    assert exported["pieces"] == 1
    assert run("import", str(bundle), "--digest", str(exported["digest"]), folder="two")[0]["name"] == TDX
    assert [row["sha256"] for row in run("list", folder="two")] == [row["sha256"] for row in run("list")]


def test_one_piece_that_cannot_be_had_does_not_keep_the_others_from_being_refreshed(
    server: Server, vendor: IntelVendor, tmp_path: Path
) -> None:
    root = tmp_path / "root.der"
    root.write_bytes(vendor.root_der)
    cache = CollateralCache(tmp_path / "cache", vendor.anchors)
    parts = chain("milan")
    cache.put(Piece("amd/vcek-chain/Milan", parts["ask"] + parts["ark"], NOW))
    cache.put(Piece(TDX, vendor.collateral(), NOW))
    services = {**serve_intel(server, vendor, Levels(evaluation=19)), "amd-kds": server.url}
    options = [word for name, url in services.items() for word in ("--service", f"{name}={url}")]
    shared = ["--dir", str(cache.folder), "--intel-root", str(root), "-o", "json"]
    result = CliRunner().invoke(cli, ["fetch", *shared, *options])
    assert result.exit_code == 1
    states = {row["name"]: row["state"] for row in json.loads(result.stdout)}
    assert states["amd/vcek-chain/Milan"].startswith("CollateralUnavailable")
    assert states[TDX].endswith("kept")
    kept = cache.get(TDX)
    assert kept is not None
    assert cache.check(kept).sequence == 19


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["export", "--out", "x"], "nothing to export"),
        (["import", "missing.json"], "cannot be read"),
        (["fetch", "--service", "amd=x", "amd/crl/Milan"], "NAME=URL"),
        (["list", "--intel-root", "missing.der"], "not a certificate"),
    ],
)
def test_mistakes_of_the_command_line(tmp_path: Path, arguments: list[str], told: str) -> None:
    command, *rest = arguments
    with pytest.raises(InvalidInput, match=told):
        CliRunner().invoke(cli, [command, "--dir", str(tmp_path), *rest], catch_exceptions=False)
