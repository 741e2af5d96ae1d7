"""Facts about the database as a whole: its name, whether dispatch is paused, whether pairs were backfilled."""

import sqlite3
import uuid

DELETED = "deleted "  # and a profile's id: when a job of it was last deleted
BACKFILLED = "backfilled"  # "yes": every pair that passed the gate has an object removal item


def get(connection: sqlite3.Connection, key: str) -> str | None:
    """The value of `key`, or None."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row["value"])


def put(connection: sqlite3.Connection, key: str, value: str) -> None:
    """Set `key` to `value`."""
    connection.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (key, value))


def paused(connection: sqlite3.Connection) -> bool:
    """Whether dispatch as a whole is paused."""
    return get(connection, "paused") == "yes"


def instance(connection: sqlite3.Connection) -> str:
    """The random name of this database, made at the first call."""
    connection.execute("INSERT INTO meta VALUES ('instance', ?) ON CONFLICT DO NOTHING", (uuid.uuid4().hex,))
    return str(get(connection, "instance"))


def need_backfill(connection: sqlite3.Connection) -> None:
    """Note that from now on pairs may pass the gate without an object removal item."""
    if get(connection, BACKFILLED) == "yes":
        put(connection, BACKFILLED, "no")
