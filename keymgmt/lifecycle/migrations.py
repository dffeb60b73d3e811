"""Schema steps: each brings a store of one schema version to the next, in one transaction, and runs once.

SQL that SQLite and PostgreSQL both take; `{words}` stand for what they write differently. A
step is never changed after a release; a store newer than this code is refused.
"""

from __future__ import annotations

from sqlalchemy import Connection

# From version → statements that lead to version + 1.
STEPS: dict[int, tuple[str, ...]] = {
    1: (
        "ALTER TABLE keys ADD COLUMN rotation_days INTEGER",
        "ALTER TABLE keys ADD COLUMN grace_days INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE keys ADD COLUMN rotates_at VARCHAR(32)",
        "CREATE INDEX keys_by_rotation ON keys (rotates_at)",
        "ALTER TABLE key_versions ADD COLUMN created_at VARCHAR(32) NOT NULL DEFAULT ''",
        "ALTER TABLE key_versions ADD COLUMN deactivates_at VARCHAR(32)",
        "UPDATE key_versions SET created_at = (SELECT created_at FROM keys WHERE keys.id = key_versions.key_id)",
    ),
    2: (
        "CREATE TABLE log_head (id INTEGER NOT NULL PRIMARY KEY, published_size BIGINT NOT NULL, "
        "published_root {blob} NOT NULL, checkpoint {blob} NOT NULL, holder VARCHAR(64) NOT NULL, "
        "epoch BIGINT NOT NULL, expires DOUBLE PRECISION NOT NULL)",
        "INSERT INTO log_head SELECT id, published_size, published_root, {empty}, '', 0, 0 FROM log_state",
        "ALTER TABLE log_state DROP COLUMN published_size",
        "ALTER TABLE log_state DROP COLUMN published_root",
    ),
}
# What the dialects write differently.
_WORDS = {
    "sqlite": {"blob": "BLOB", "empty": "x''"},
    "postgresql": {"blob": "BYTEA", "empty": "''::bytea"},
}


def migrate(connection: Connection, present: int, wanted: int) -> None:
    """Run the steps from `present` up to `wanted`. Raises KeyError if a step is missing."""
    words = _WORDS[connection.dialect.name]
    for version in range(present, wanted):
        for statement in STEPS[version]:
            connection.exec_driver_sql(statement.format_map(words))
