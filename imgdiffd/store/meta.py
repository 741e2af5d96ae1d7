"""What the database remembers of itself, by name: which one it is, whether dispatch is paused, what was backfilled."""

import sqlite3
import uuid

BACKFILLED = "backfilled"  # "yes": every pair that passed the gate has its object removal item


def get(connection: sqlite3.Connection, key: str) -> str | None:
    """The value of `key`; None where there is none."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row["value"])


def put(connection: sqlite3.Connection, key: str, value: str) -> None:
    """Make `value` the one of `key`."""
    connection.execute("INSERT INTO meta VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (key, value))


def instance(connection: sqlite3.Connection) -> str:
    """The name of this database, drawn when it is first asked for."""
    connection.execute("INSERT INTO meta VALUES ('instance', ?) ON CONFLICT DO NOTHING", (uuid.uuid4().hex,))
    return str(get(connection, "instance"))


def need_backfill(connection: sqlite3.Connection) -> None:
    """From now on pairs may pass the gate without an object removal item."""
    if get(connection, BACKFILLED) == "yes":
        put(connection, BACKFILLED, "no")
