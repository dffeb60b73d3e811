"""Configuration of the key service: one YAML or JSON file, validated whole before anything starts.

Field names are camelCase or snake_case in the file. Paths that are not absolute are taken
from the folder of the configuration file. Secrets never stand in the file: tokens are given
by their SHA-256, the HSM's PIN by the path of a file.
"""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.alias_generators import to_camel

from crds.errors import InvalidInput

Role = Literal["operator", "registrar", "auditor"]
MAX_CONFIG_BYTES = 1 << 20


class Section(BaseModel):
    """Base of every part of the file: unknown fields are mistakes, values never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True, validate_default=True
    )


class Listen(Section):
    """Where the service answers. Port 0 lets the system choose; see `ready_file`."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8443


class Tls(Section):
    """Server certificate chain and private key, PEM. TLS 1.3 is the only version spoken."""

    certificate: Path
    key: Path


class Hsm(Section):
    """A PKCS#11 token. Without `library`, SoftHSM2 with a token of its own under the data folder.

    `pin_file` holds the user PIN, one line. With `embedded` the token and its PIN are made
    on the first start, under `folder` if replicas on one machine share it; without it the token
    must exist. `avoid_mechanisms` names PKCS#11
    mechanisms to treat as absent (a module that lists what it does not do well).
    """

    library: Path | None = None
    token_label: Annotated[str, Field(min_length=1, max_length=32)] = "kekkai"  # noqa: S105
    pin_file: Path | None = None
    embedded: bool = True
    folder: Path | None = None  # holds `hsm/`; without it the data folder does
    avoid_mechanisms: tuple[str, ...] = ()
    request_timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 20.0
    worker_lifetime_seconds: Annotated[float, Field(gt=1)] = 900.0

    def token_settings(self) -> dict[str, Any]:
        """What the worker needs of this, as plain data (`hsm.token.TokenSettings`)."""
        return {
            "library": str(self.library) if self.library else None,
            "label": self.token_label,
            "pin_file": str(self.pin_file) if self.pin_file else None,
            "embedded": self.embedded,
            "avoid": list(self.avoid_mechanisms),
        }

    @model_validator(mode="after")
    def _external_needs_pin(self) -> Hsm:
        if not self.embedded and (self.library is None or self.pin_file is None):
            raise ValueError("with embedded: false, library and pinFile must both be given")
        return self


class WitnessPeer(Section):
    """One witness: where it answers, its cosignature vkey, the CA of its certificate if not a public one."""

    url: Annotated[str, Field(max_length=512)]
    key: Annotated[str, Field(max_length=4096)]
    ca: Path | None = None


class Witnesses(Section):
    """Third parties that cosign each checkpoint before it is published. `quorum` must be a majority.

    `grace_seconds` is for how long after the last quorum the log goes on without one: 0 for
    not at all, so that no key is released on a checkpoint that witnesses have not seen.
    """

    peers: Annotated[tuple[WitnessPeer, ...], Field(min_length=1, max_length=32)]
    quorum: Annotated[int, Field(ge=1)]
    timeout_seconds: Annotated[float, Field(gt=0, le=15)] = 5.0
    grace_seconds: Annotated[float, Field(ge=0, le=86400)] = 0.0


class ObjectStore(Section):
    """The log's tiles in an object store: a URL such as `s3://bucket/prefix`; credentials from the environment."""

    url: Annotated[str, Field(pattern=r"^[a-z0-9]+://", max_length=512)]
    endpoint: str | None = None
    region: str | None = None
    cache_bytes: Annotated[int, Field(ge=0)] = 64 << 20


class Log(Section):
    """The transparency log. `origin` is its name in every checkpoint and must never change.

    `anchors` are files on storage of another owner: the last checkpoint is copied there and
    compared at start, so that a data folder restored from an old backup is refused. Replicas
    share one `folder`; one of them writes it at a time, for `lease_seconds` from its last
    sign of life.
    """

    origin: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9./_-]{0,127}$")]
    folder: Path | None = None  # without it `log` under the data folder
    anchors: tuple[Path, ...] = ()
    lease_seconds: Annotated[float, Field(ge=1, le=60)] = 6.0
    objects: ObjectStore | None = None  # instead of `folder`
    witnesses: Witnesses | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Log:
        if self.objects is not None and self.folder is not None:
            raise ValueError("give log.folder or log.objects, not both")
        return self


class Token(Section):
    """A bearer token by its SHA-256 (hex) and what its holder may do."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    role: Role
    name: Annotated[str, Field(max_length=64)] = ""


class SnpTcb(Section):
    """Least security patch levels that an SNP report's reported TCB must reach."""

    bootloader: Annotated[int, Field(ge=0, le=255)] = 0
    tee: Annotated[int, Field(ge=0, le=255)] = 0
    snp: Annotated[int, Field(ge=0, le=255)] = 0
    microcode: Annotated[int, Field(ge=0, le=255)] = 0
    fmc: Annotated[int, Field(ge=0, le=255)] | None = None


class SnpAppraisal(Section):
    """What every SNP guest must satisfy before any release policy is looked at."""

    minimum_tcb: SnpTcb = SnpTcb()
    products: tuple[str, ...] = ("Milan", "Genoa", "Turin")


Advisory = Annotated[str, Field(pattern=r"^INTEL-(SA|DOC)-\d{5}$")]
Digest = Annotated[str, Field(pattern=r"^([0-9a-f]{2})+$", max_length=128)]
TcbStatus = Literal[
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
]


class IntelTcb(Section):
    """Which TCB statuses and advisories of Intel platforms are accepted, and how fresh collateral must be.

    A status other than UpToDate comes with advisories: those that have been judged are listed
    in `accepted_advisories`, and one that Intel adds later is refused. After a TCB recovery,
    `minimum_evaluation_number` (tcbEvaluationDataNumber) keeps older collateral from being used.
    """

    accepted_statuses: tuple[TcbStatus, ...] = ("UpToDate",)
    accepted_advisories: tuple[Advisory, ...] = ()
    minimum_evaluation_number: Annotated[int, Field(ge=0)] = 0
    maximum_collateral_age_days: Annotated[float, Field(gt=0)] | None = None
    allow_smt: bool = True


class TdxAppraisal(IntelTcb):
    """What every TD must satisfy. `seam_measurements` are MRSEAM values (96 hex digits) of accepted TDX modules."""

    seam_measurements: tuple[Digest, ...] | None = None


class SgxAppraisal(IntelTcb):
    """What every SGX enclave must satisfy. `signers` are MRSIGNER values (64 hex digits)."""

    signers: tuple[Digest, ...] | None = None


class NitroAppraisal(Section):
    """For how long after it was made a Nitro attestation document is accepted, in seconds."""

    max_age_seconds: Annotated[float, Field(gt=0, le=10800)] = 300.0


class NvidiaAppraisal(Section):
    """GPUs and NVSwitches: what is trusted, what is at hand, what every device must satisfy.

    `local_trust_roots`: folders of PEM certificates that are trusted as device identity
    roots, such as those of emulated devices. `reference_value_dirs`: JSON manifests of golden
    measurements (docs/attestation.md). `ocsp_dirs`: OCSP responses, DER, `.ocsp` or `.der`.
    `ocsp_responders`: SHA-256 of the keys of responders that the issuers did not delegate.
    """

    trust_nvidia: bool = True
    local_trust_roots: tuple[Path, ...] = ()
    reference_value_dirs: tuple[Path, ...] = ()
    ocsp_dirs: tuple[Path, ...] = ()
    ocsp_responders: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = ()
    require_reference_values: bool = True
    require_revocation: bool = False
    require_topology: bool = True
    minimum_driver: Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]+)*)?$", max_length=32)] = ""
    modes: tuple[Literal["SPT", "MPT", "PPCIE"], ...] | None = None


class Attestation(Section):
    """Trust anchors and the appraisal that holds for everybody.

    Roots of AMD, Intel and AWS are pinned in the verifiers. `local_trust_roots` (folders),
    `intel_roots` and `nitro_roots` (certificate files) make the service trust other roots, such
    as emulated hardware's; they are empty unless set here. `collateral_cache` is the folder
    that `kekkai keys collateral` fills; Intel's pieces in it are taken up while the service runs.
    """

    collateral_dirs: tuple[Path, ...] = ()
    collateral_cache: Path | None = None
    trust_amd: bool = True
    trust_intel: bool = True
    trust_aws_nitro: bool = True
    local_trust_roots: tuple[Path, ...] = ()
    intel_roots: tuple[Path, ...] = ()
    nitro_roots: tuple[Path, ...] = ()
    snp: SnpAppraisal = SnpAppraisal()
    nvidia: NvidiaAppraisal = NvidiaAppraisal()
    tdx: TdxAppraisal = TdxAppraisal()
    sgx: SgxAppraisal = SgxAppraisal()
    nitro: NitroAppraisal = NitroAppraisal()


class External(Section):
    """Custodians' own key services that may be asked for keys: host names. None by default."""

    allowed_hosts: Annotated[tuple[str, ...], Field(max_length=1024)] = ()


class Limits(Section):
    """Bounds on what a caller may cost the service."""

    body_bytes: Annotated[int, Field(ge=1024, le=16 << 20)] = 1 << 20
    request_seconds: Annotated[float, Field(gt=0, le=600)] = 30.0
    concurrent_requests: Annotated[int, Field(ge=1)] = 1024
    session_seconds: Annotated[int, Field(ge=10, le=3600)] = 300
    denials_per_second: Annotated[float, Field(gt=0)] = 20.0
    denials_burst: Annotated[int, Field(ge=1)] = 200


class KeyServiceConfig(Section):
    """The whole file. `load` reads it."""

    listen: Listen = Listen()
    tls: Tls
    data_dir: Path
    store_url: str | None = None  # SQLAlchemy URL; without it a SQLite file under data_dir
    jurisdiction: Annotated[str, Field(pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$")]
    hsm: Hsm = Hsm()
    log: Log
    tokens: Annotated[tuple[Token, ...], Field(max_length=256)] = ()
    attestation: Attestation = Attestation()
    limits: Limits = Limits()
    external: External = External()
    ready_file: Path | None = None  # JSON {"url", "pid"} is written here once the service answers

    @field_validator("tokens")
    @classmethod
    def _distinct(cls, tokens: tuple[Token, ...]) -> tuple[Token, ...]:
        if len({token.sha256 for token in tokens}) != len(tokens):
            raise ValueError("the same token is listed twice")
        return tokens

    @model_validator(mode="after")
    def _replicas_share_what_they_must(self) -> KeyServiceConfig:
        if self.shares_store and self.log.folder is None and self.log.objects is None:
            raise ValueError("with storeUrl, log.folder must name the folder that all replicas share")
        return self

    @property
    def database_url(self) -> str:
        """The SQLAlchemy URL in effect."""
        return self.store_url or f"sqlite:///{self.data_dir / 'keys.sqlite'}"

    @property
    def log_folder(self) -> Path:
        """Where the log's tiles and checkpoint are."""
        return self.log.folder or self.data_dir / "log"

    @property
    def shares_store(self) -> bool:
        """Whether other replicas may use the store, and with it the log and the token."""
        return not self.database_url.startswith("sqlite")

    def roles_of(self, bearer: str) -> frozenset[Role]:
        """Roles of a presented bearer token; empty if it is not known. Constant time per entry."""
        digest = hashlib.sha256(bearer.encode()).hexdigest()
        return frozenset(token.role for token in self.tokens if hmac.compare_digest(token.sha256, digest))


def load(path: Path) -> KeyServiceConfig:
    """Read and validate a configuration file. Raises InvalidInput naming the field at fault."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidInput(
            f"the configuration file cannot be read: {error.strerror}",
            where=str(path),
            fix="give --config FILE",
        ) from None
    if len(raw) > MAX_CONFIG_BYTES:
        raise InvalidInput("the configuration file is larger than 1 MiB", where=str(path))
    try:
        document = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise InvalidInput(f"not valid YAML or JSON: {error}", where=str(path)) from None
    return parse(document, base=path.resolve().parent, where=str(path))


def parse(document: Any, *, base: Path, where: str = "configuration") -> KeyServiceConfig:
    """Validate a parsed document; relative paths are resolved against `base`."""
    try:
        config = KeyServiceConfig.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(first["msg"], where=f"{where}: {field}", fix="see docs/keys.md, Configuration") from None
    absolute = _absolute(config, base)
    assert isinstance(absolute, KeyServiceConfig)
    return absolute


def _absolute(value: Any, base: Path) -> Any:
    if isinstance(value, Path):
        return base / value
    if isinstance(value, tuple):
        return tuple(_absolute(item, base) for item in value)
    if isinstance(value, Section):
        changes = {name: _absolute(getattr(value, name), base) for name in type(value).model_fields}
        return value.model_copy(update=changes)
    return value
