"""Which models worked on which job."""

import json
import sqlite3
from collections.abc import Collection, Iterable

from imgdiffd.store.rows import BundleRow, ModelRow

NO_BUNDLE = BundleRow("", {})  # of a store that nothing works for; what it records has no bundle


def keep_bundle(connection: sqlite3.Connection, bundle: BundleRow) -> int | None:
    """The id of this bundle, which is inserted if it is new; None for NO_BUNDLE."""
    if bundle == NO_BUNDLE:
        return None
    models = {
        role: {"model": each.model, "licence": each.licence, "digest": each.digest}
        for role, each in bundle.models.items()
    }
    text = json.dumps(models, ensure_ascii=False, sort_keys=True)
    connection.execute("INSERT INTO bundles (name, models) VALUES (?, ?) ON CONFLICT DO NOTHING", (bundle.name, text))
    query = "SELECT id FROM bundles WHERE name = ? AND models = ?"
    found: int = connection.execute(query, (bundle.name, text)).fetchone()[0]
    return found


def note_bundle(connection: sqlite3.Connection, jobs: Iterable[int], bundle: int | None) -> None:
    """Record that the bundle worked on these jobs."""
    if bundle is not None:
        connection.executemany("INSERT OR IGNORE INTO job_bundles VALUES (?, ?)", ((job, bundle) for job in jobs))


def bundles_of(connection: sqlite3.Connection, jobs: Collection[int] | None) -> dict[int, list[BundleRow]]:
    """The bundles that worked on each of these jobs, or of all; jobs that none is known for are left out."""
    where: str = ""
    values: tuple[str, ...] = ()
    if jobs is not None:
        where, values = " WHERE job_id IN (SELECT value FROM json_each(?))", (json.dumps(list(jobs)),)
    found: dict[int, list[BundleRow]] = {}
    for row in connection.execute(
        f"SELECT job_id, name, models FROM job_bundles JOIN bundles ON bundles.id = bundle_id{where}"
        " ORDER BY job_id, bundle_id",
        values,
    ):
        models = {role: ModelRow(**each) for role, each in json.loads(row["models"]).items()}
        found.setdefault(row["job_id"], []).append(BundleRow(row["name"], models))
    return found
