"""Tables. Plain types only, so that SQLite and PostgreSQL hold the same; times are UTC ISO text."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA_VERSION = 3
metadata = MetaData()

meta = Table(
    "meta",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

# One row: the next index to give out. Every change locks it first, so that changes come one after another.
log_state = Table(
    "log_state",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("next_index", BigInteger, nullable=False),
)

# One row, apart from log_state so that publishing never waits for a change: the last checkpoint
# that was published, and whose turn it is to publish the next (`log_lease`).
log_head = Table(
    "log_head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("published_size", BigInteger, nullable=False),
    Column("published_root", LargeBinary, nullable=False),
    Column("checkpoint", LargeBinary, nullable=False),  # the signed note; empty before the first
    Column("holder", String(64), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("expires", Double, nullable=False),  # Unix seconds by the database's clock
)

log_leaves = Table(
    "log_leaves",
    metadata,
    Column("idx", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("kind", String(32), nullable=False),
    Column("namespace", String(63), nullable=False, default=""),
    Column("name", String(253), nullable=False, default=""),
    Column("data", LargeBinary, nullable=False),
    Index("log_leaves_by_key", "namespace", "name", "idx"),
    Index("log_leaves_by_kind", "kind", "namespace", "name"),
)

custodian_sets = Table(
    "custodian_sets",
    metadata,
    Column("digest", String(71), primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("envelope", Text),  # DSSE by the quorum of the set before; null for a tenant's first
)

tenants = Table(
    "tenants",
    metadata,
    Column("tenant", String(63), primary_key=True),
    Column("custodian_set", String(71), ForeignKey("custodian_sets.digest"), nullable=False),
)

policies = Table(
    "policies",
    metadata,
    Column("digest", String(71), primary_key=True),
    Column("tenant", String(63), nullable=False),
    Column("custodian_set", String(71), ForeignKey("custodian_sets.digest"), nullable=False),
    Column("envelope", Text, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("namespace", String(63), nullable=False),
    Column("name", String(253), nullable=False),
    Column("tenant", String(63), nullable=False),
    Column("uid", String(64), nullable=False),
    Column("purpose", String(64), nullable=False),
    Column("algorithm", String(32), nullable=False),
    Column("origin", String(16), nullable=False),
    Column("jurisdiction", String(8), nullable=False),
    Column("policy_digest", String(71), ForeignKey("policies.digest"), nullable=False),
    Column("custodian_set", String(71), ForeignKey("custodian_sets.digest"), nullable=False),
    Column("state", String(16), nullable=False),
    Column("version", Integer, nullable=False),
    Column("releases", BigInteger, nullable=False),  # over the key's life
    Column("policy_releases", BigInteger, nullable=False),  # under the policy in force
    Column("created_at", String(32), nullable=False),
    Column("log_index", BigInteger, nullable=False),  # the key's last life-cycle entry
    Column("rotation_days", Integer),  # null: never by itself
    Column("grace_days", Integer, nullable=False, server_default="0"),
    Column("rotates_at", String(32)),
    UniqueConstraint("namespace", "name"),
    Index("keys_by_rotation", "rotates_at"),
)

key_versions = Table(
    "key_versions",
    metadata,
    Column("key_id", String(255), ForeignKey("keys.id"), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("hsm_key_id", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", String(32), nullable=False, server_default=""),
    Column("deactivates_at", String(32)),  # null for the present version
)

# What a session may have done with a key without a new decision (transit operations).
grants = Table(
    "grants",
    metadata,
    Column("session", String(64), primary_key=True),  # SHA-256 of the cookie
    Column("key_id", String(255), ForeignKey("keys.id"), primary_key=True),
    Column("policy_digest", String(71), nullable=False),
    Column("operations", String(255), nullable=False),  # as the policy names them, with commas
    Column("expires", BigInteger, nullable=False, index=True),  # Unix seconds
)

# A row appears when a challenge is answered: its primary key is what makes nonces single-use.
sessions = Table(
    "sessions",
    metadata,
    Column("id_hash", String(64), primary_key=True),  # SHA-256 of the cookie
    Column("expires", BigInteger, nullable=False, index=True),  # Unix seconds
    Column("token", Text),  # null when the evidence was refused
)
