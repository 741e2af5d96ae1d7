"""Brings an older database up to date: a backup first, then every step in one transaction."""

import logging
import sqlite3
from pathlib import Path

from imgdiffd.errors import StoreError
from imgdiffd.store.backup import write_copy

_log = logging.getLogger(__name__)

SCHEMA_VERSION = 7
OLDEST_READABLE = 1  # the writer upgrades an older database itself, a reader upgrades a temporary copy
# The steps from each version to the next. A released step never changes: old databases have gone through it.
STEPS: dict[int, tuple[str, ...]] = {
    1: ("ALTER TABLE pairs ADD COLUMN answer TEXT NOT NULL DEFAULT ''",),
    2: (
        """CREATE TABLE removals (
    item_id    INTEGER PRIMARY KEY REFERENCES items ON DELETE CASCADE,
    job_id     INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    attempt    INTEGER NOT NULL,
    stage      TEXT NOT NULL,
    state      TEXT NOT NULL,
    crashes    INTEGER NOT NULL DEFAULT 0,
    reason     TEXT NOT NULL DEFAULT '',
    detail     TEXT NOT NULL DEFAULT '',
    boxes      TEXT NOT NULL DEFAULT '[]',
    created_at REAL NOT NULL,
    updated_at REAL NOT NULL
) STRICT""",
        "CREATE INDEX removals_ready ON removals (stage, job_id, item_id, attempt, crashes) WHERE state = 'ready'",
        "CREATE INDEX removals_job ON removals (job_id, state, item_id)",
        """CREATE TABLE removal_counts (
    job_id INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    stage  TEXT NOT NULL,
    state  TEXT NOT NULL,
    reason TEXT NOT NULL,
    n      INTEGER NOT NULL,
    PRIMARY KEY (job_id, stage, state, reason)
) STRICT, WITHOUT ROWID""",
        """CREATE TRIGGER removals_inserted AFTER INSERT ON removals BEGIN
    INSERT INTO removal_counts VALUES (NEW.job_id, NEW.stage, NEW.state, NEW.reason, 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
END""",
        """CREATE TRIGGER removals_moved AFTER UPDATE OF stage, state, reason ON removals
WHEN (OLD.stage, OLD.state, OLD.reason) <> (NEW.stage, NEW.state, NEW.reason) BEGIN
    UPDATE removal_counts SET n = n - 1
        WHERE job_id = OLD.job_id AND stage = OLD.stage AND state = OLD.state AND reason = OLD.reason;
    INSERT INTO removal_counts VALUES (NEW.job_id, NEW.stage, NEW.state, NEW.reason, 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
END""",
        """CREATE TRIGGER removals_deleted AFTER DELETE ON removals BEGIN
    UPDATE removal_counts SET n = n - 1
        WHERE job_id = OLD.job_id AND stage = OLD.stage AND state = OLD.state AND reason = OLD.reason;
END""",
        """CREATE TABLE erasures (
    item_id       INTEGER NOT NULL REFERENCES removals ON DELETE CASCADE,
    image         INTEGER NOT NULL,
    number        INTEGER NOT NULL,
    x1            INTEGER NOT NULL,
    y1            INTEGER NOT NULL,
    x2            INTEGER NOT NULL,
    y2            INTEGER NOT NULL,
    size_px       INTEGER NOT NULL,
    cosine        REAL NOT NULL,
    source        TEXT NOT NULL,
    erased        TEXT NOT NULL,
    seed          INTEGER NOT NULL,
    text          TEXT NOT NULL DEFAULT '',
    scores        TEXT NOT NULL DEFAULT '{}',
    with_image    TEXT NOT NULL DEFAULT '',
    without_image TEXT NOT NULL DEFAULT '',
    reason        TEXT NOT NULL DEFAULT '',
    detail        TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (item_id, image, number)
) STRICT, WITHOUT ROWID""",
    ),
    3: (  # object removal's items move into `items`, under new ids
        "ALTER TABLE items ADD COLUMN pipeline TEXT NOT NULL DEFAULT 'replacement'",
        "ALTER TABLE items ADD COLUMN origin INTEGER REFERENCES items ON DELETE CASCADE",
        "DROP TRIGGER items_inserted",
        "DROP TRIGGER items_moved",
        "DROP TRIGGER items_deleted",
        "DROP INDEX items_caption",
        "DROP INDEX items_job",
        "DROP INDEX counts_ready",
        """INSERT INTO items (job_id, profile_id, line, source_id, caption, caption_sha, stage, state, attempt, crashes,
    reason, detail, created_at, updated_at, pipeline, origin)
    SELECT items.job_id, profile_id, line, source_id, caption, caption_sha, removals.stage, removals.state,
        removals.attempt, removals.crashes, removals.reason, removals.detail, removals.created_at, removals.updated_at,
        'removal', items.id FROM removals JOIN items ON items.id = removals.item_id ORDER BY items.id""",
        "CREATE UNIQUE INDEX items_caption ON items (profile_id, caption_sha)"
        " WHERE state <> 'cancelled' AND origin IS NULL",
        "CREATE INDEX items_job ON items (job_id, origin)",
        "CREATE UNIQUE INDEX items_origin ON items (origin, pipeline) WHERE origin IS NOT NULL",
        """INSERT INTO candidates SELECT items.id, removals.boxes FROM removals
    JOIN items ON items.origin = removals.item_id WHERE removals.boxes <> '[]'""",
        "ALTER TABLE erasures RENAME TO erasures_3",
        """CREATE TABLE erasures (
    item_id       INTEGER NOT NULL REFERENCES items ON DELETE CASCADE,
    image         INTEGER NOT NULL,
    number        INTEGER NOT NULL,
    x1            INTEGER NOT NULL,
    y1            INTEGER NOT NULL,
    x2            INTEGER NOT NULL,
    y2            INTEGER NOT NULL,
    size_px       INTEGER NOT NULL,
    cosine        REAL NOT NULL,
    source        TEXT NOT NULL,
    erased        TEXT NOT NULL,
    seed          INTEGER NOT NULL,
    text          TEXT NOT NULL DEFAULT '',
    scores        TEXT NOT NULL DEFAULT '{}',
    with_image    TEXT NOT NULL DEFAULT '',
    without_image TEXT NOT NULL DEFAULT '',
    reason        TEXT NOT NULL DEFAULT '',
    detail        TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (item_id, image, number)
) STRICT, WITHOUT ROWID""",
        """INSERT INTO erasures SELECT items.id, image, number, x1, y1, x2, y2, size_px, cosine, source, erased, seed,
    text, scores, with_image, without_image, erasures_3.reason, erasures_3.detail
    FROM erasures_3 JOIN items ON items.origin = erasures_3.item_id""",
        "DROP TABLE erasures_3",
        "ALTER TABLE counts RENAME TO counts_3",
        """CREATE TABLE counts (
    job_id   INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    pipeline TEXT NOT NULL,
    stage    TEXT NOT NULL,
    state    TEXT NOT NULL,
    reason   TEXT NOT NULL,
    n        INTEGER NOT NULL,
    PRIMARY KEY (job_id, pipeline, stage, state, reason)
) STRICT, WITHOUT ROWID""",
        "INSERT INTO counts SELECT job_id, 'replacement', stage, state, reason, n FROM counts_3",
        "INSERT INTO counts SELECT job_id, 'removal', stage, state, reason, n FROM removal_counts",
        "DROP TABLE counts_3",
        "CREATE INDEX counts_ready ON counts (stage, job_id, pipeline) WHERE state = 'ready' AND n > 0",
        """CREATE TRIGGER items_inserted AFTER INSERT ON items BEGIN
    INSERT INTO counts VALUES (NEW.job_id, NEW.pipeline, NEW.stage, NEW.state, NEW.reason, 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
END""",
        """CREATE TRIGGER items_moved AFTER UPDATE OF stage, state, reason ON items
WHEN (OLD.stage, OLD.state, OLD.reason) <> (NEW.stage, NEW.state, NEW.reason) BEGIN
    UPDATE counts SET n = n - 1 WHERE job_id = OLD.job_id AND pipeline = OLD.pipeline
        AND stage = OLD.stage AND state = OLD.state AND reason = OLD.reason;
    INSERT INTO counts VALUES (NEW.job_id, NEW.pipeline, NEW.stage, NEW.state, NEW.reason, 1)
        ON CONFLICT DO UPDATE SET n = n + 1;
END""",
        """CREATE TRIGGER items_deleted AFTER DELETE ON items BEGIN
    UPDATE counts SET n = n - 1 WHERE job_id = OLD.job_id AND pipeline = OLD.pipeline
        AND stage = OLD.stage AND state = OLD.state AND reason = OLD.reason;
END""",
        "DROP TABLE removals",
        "DROP TABLE removal_counts",
        "UPDATE meta SET key = 'backfilled' WHERE key = 'pairs_adopted'",
    ),
    4: (
        """CREATE TABLE removal_samples (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id     INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    item_id    INTEGER NOT NULL REFERENCES items ON DELETE CASCADE,
    image      INTEGER NOT NULL,
    number     INTEGER NOT NULL,
    created_at REAL NOT NULL,
    UNIQUE (item_id, image, number),
    FOREIGN KEY (item_id, image, number) REFERENCES erasures
) STRICT""",
        "CREATE INDEX removal_samples_job ON removal_samples (job_id, id)",
        """INSERT INTO removal_samples (job_id, item_id, image, number, created_at)
    SELECT items.job_id, items.id, image, number, items.updated_at FROM erasures JOIN items ON items.id = item_id
    WHERE with_image <> '' ORDER BY items.updated_at, items.id, image, number""",
    ),
    5: (
        """CREATE TABLE calibrations (
    id       INTEGER PRIMARY KEY,
    key      BLOB NOT NULL UNIQUE,
    profile  TEXT NOT NULL,
    bundle   TEXT NOT NULL,
    at       REAL NOT NULL,
    loss     REAL NOT NULL,
    finished REAL NOT NULL
) STRICT""",
        """CREATE TABLE previews (
    id             INTEGER PRIMARY KEY,
    calibration_id INTEGER NOT NULL REFERENCES calibrations,
    item_id        INTEGER NOT NULL UNIQUE,
    score          REAL NOT NULL,
    kept           INTEGER NOT NULL
) STRICT""",
        "CREATE INDEX previews_calibration ON previews (calibration_id)",
    ),
    6: (
        "ALTER TABLE regions ADD COLUMN answer TEXT NOT NULL DEFAULT ''",
        """CREATE TABLE bundles (
    id     INTEGER PRIMARY KEY,
    name   TEXT NOT NULL,
    models TEXT NOT NULL,
    UNIQUE (name, models)
) STRICT""",
        """CREATE TABLE job_bundles (
    job_id    INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    bundle_id INTEGER NOT NULL REFERENCES bundles,
    PRIMARY KEY (job_id, bundle_id)
) STRICT, WITHOUT ROWID""",
    ),
}


def version_of(connection: sqlite3.Connection) -> int:
    """The schema version of the database."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def backup_path(database: Path, version: int) -> Path:
    """The path of the backup of the database at `version`."""
    return database.with_name(f"{database.name}.v{version}")


def bring_up_to_date(connection: sqlite3.Connection, database: Path) -> None:
    """Back up an older database, then upgrade it to SCHEMA_VERSION, or leave it unchanged on failure.

    If the process is killed, the next call starts over. Raises StoreError if the backup fails, sqlite3.Error if a step
    fails. The caller holds the lock and has not switched on foreign keys yet.
    """
    version = version_of(connection)
    if version == SCHEMA_VERSION:
        return
    kept = backup_path(database, version)
    try:
        write_copy(connection, kept)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(
            f"{database}: cannot be backed up before its upgrade from schema version {version}: {error}",
            hint=f"free {database.stat().st_size >> 20} MiB on this disk, or check the folder's owner",
        ) from error
    migrate(connection)
    _log.info("%s: upgraded from schema %d to %d; the backup is %s", database, version, SCHEMA_VERSION, kept.name)


def migrate(connection: sqlite3.Connection) -> None:
    """Run all steps up to SCHEMA_VERSION in one transaction. Raises sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in range(version_of(connection), SCHEMA_VERSION):
            for statement in STEPS[step]:
                connection.execute(statement)
        if connection.execute("PRAGMA foreign_key_check").fetchone():
            raise sqlite3.IntegrityError("some rows refer to rows that do not exist")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
