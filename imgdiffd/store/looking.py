"""Lists of samples and items: a page reads rows in order until it is full, or has read enough of them.

Both kinds are read at once, each along an index, and merged. Whether a row fits is worked out in SQL, row by row.
"""

import heapq
import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from imgdiffd.errors import InputError
from imgdiffd.method.messages import CLIP_IMAGE_COSINE
from imgdiffd.method.removal_messages import NO_COSINE
from imgdiffd.method.score_names import OF_PAIR
from imgdiffd.pipeline import PIPELINES, Pipeline
from imgdiffd.store.found import Cursor, ItemPage, Order, SamplePage, Wanted
from imgdiffd.store.jobs import known_job
from imgdiffd.store.listed import items_of, samples_of

MOST_READ = 20_000  # rows looked at for one page


@dataclass(frozen=True, slots=True)
class _Source:
    """How one kind is listed: its `rows`, and the index columns `key` and `job` along which they are read, in order.

    Where both kinds are wanted, what has the lower `when` comes first. `part` is the test of a region or an object,
    with braces for its conditions. A removal's CLIP cosine has a column of its own.
    """

    rows: str
    where: str
    when: str
    key: str
    row: str
    job: str
    part: str
    scores: str
    cosine: str = ""


_SAMPLES = {
    Pipeline.REPLACEMENT: _Source(
        rows="samples CROSS JOIN items ON items.id = samples.item_id CROSS JOIN pairs ON pairs.item_id = items.id"
        " CROSS JOIN regions ON regions.item_id = samples.item_id AND regions.number = samples.region",
        where="1",
        when="samples.created_at",
        key="samples.id",
        row="samples.id",
        job="samples.job_id",
        part="{}",
        scores="regions.scores",
    ),
    Pipeline.REMOVAL: _Source(
        rows="removal_samples CROSS JOIN items ON items.id = removal_samples.item_id CROSS JOIN pairs"
        " ON pairs.item_id = items.origin CROSS JOIN erasures ON erasures.item_id = removal_samples.item_id"
        " AND erasures.image = removal_samples.image AND erasures.number = removal_samples.number",
        where="1",
        when="removal_samples.created_at",
        key="removal_samples.id",
        row="removal_samples.id",
        job="removal_samples.job_id",
        part="{}",
        scores="erasures.scores",
        cosine=f"nullif(erasures.cosine, {NO_COSINE})",
    ),
}
_ITEMS = {
    Pipeline.REPLACEMENT: _Source(
        rows="items LEFT JOIN pairs ON pairs.item_id = items.id",
        where="items.origin IS NULL",
        when="items.id",
        key="items.id",
        row="items.id",
        job="items.job_id",
        part="EXISTS (SELECT 1 FROM regions WHERE regions.item_id = items.id AND {})",
        scores="regions.scores",
    ),
    Pipeline.REMOVAL: _Source(
        rows="items LEFT JOIN pairs ON pairs.item_id = items.origin",
        where="items.pipeline = 'removal'",
        when="items.origin",
        key="items.origin",
        row="items.id",
        job="items.job_id",
        part="EXISTS (SELECT 1 FROM erasures WHERE erasures.item_id = items.id AND {})",
        scores="erasures.scores",
        cosine=f"nullif(erasures.cosine, {NO_COSINE})",
    ),
}
_RANK = {pipeline: rank for rank, pipeline in enumerate(Pipeline)}  # which of two kinds at one moment comes first
_Terms = list[tuple[str, tuple[Any, ...]]]  # conditions, each with the values of its question marks
_Found = list[tuple[Pipeline, int]]


def list_samples_by(
    connection: sqlite3.Connection, wanted: Wanted, limit: int, after: Cursor, order: Order
) -> SamplePage:
    """The next `limit` samples in the order in which they were recorded, or its reverse, as far as MOST_READ goes.

    Raises InputError for an unknown job or profile.
    """
    terms, total = _terms(connection, wanted), _sample_total(connection, wanted)
    found, read, place = _page(connection, _SAMPLES, wanted, terms, total, limit, after, order)
    made = {
        (kind, sample.id): sample
        for kind, source in _SAMPLES.items()
        for sample in samples_of(connection, kind, source.rows, [row for each, row in found if each is kind])
    }
    return SamplePage(tuple(made[each] for each in found), read, total, place)


def list_items_by(connection: sqlite3.Connection, wanted: Wanted, limit: int, after: Cursor, order: Order) -> ItemPage:
    """The next `limit` items in the order of their captions, or its reverse, as far as MOST_READ goes.

    Raises InputError for an unknown job or profile.
    """
    terms, total = _terms(connection, wanted), _item_total(connection, wanted)
    found, read, place = _page(connection, _ITEMS, wanted, terms, total, limit, after, order)
    made = {item.item: item for item in items_of(connection, [row for _, row in found])}
    return ItemPage(tuple(made[row] for _, row in found), read, total, place)


def _terms(connection: sqlite3.Connection, wanted: Wanted) -> _Terms:
    """What an item must fulfil, whatever its kind."""
    if wanted.job is not None:
        known_job(connection, wanted.job)
    terms: _Terms = []
    if wanted.profile is not None:
        chosen = "items.profile_id IN (SELECT value FROM json_each(?))"
        terms.append((chosen, (json.dumps(_profiles(connection, wanted.profile)),)))
    for column in ("state", "stage", "reason"):
        if (value := getattr(wanted, column)) is not None:
            terms.append((f"items.{column} = ?", (value,)))
    if wanted.noun is not None:
        word = json.dumps(wanted.noun.strip().lower(), ensure_ascii=False)
        terms.append(("(instr(pairs.nouns1, ?) OR instr(pairs.nouns2, ?))", (word, word)))
    return terms


def _profiles(connection: sqlite3.Connection, name: str) -> list[int]:
    """The profiles of that name or, where there is none, the one of that number. Raises InputError."""
    rows = connection.execute("SELECT id, name FROM profiles ORDER BY id").fetchall()
    found = [row["id"] for row in rows if row["name"] == name] or [row["id"] for row in rows if str(row["id"]) == name]
    if not found:
        known = ", ".join(dict.fromkeys(row["name"] for row in rows)) or "none yet"
        hint = f"the jobs' profiles are: {known}"
        raise InputError(f"no job has the profile {name[:100]!r}", code="no_such_profile", hint=hint)
    return found


def _bounds(source: _Source, wanted: Wanted) -> _Terms:
    """The tests of scores. A part must pass all of its own at once."""
    of_pair: _Terms = []
    of_part: _Terms = []
    for bounds, compared in ((wanted.least, ">="), (wanted.most, "<=")):
        for name, bound in bounds.items():
            if name.startswith(OF_PAIR):
                path = f'$."{name.removeprefix(OF_PAIR)}"'
                of_pair.append((f"json_extract(pairs.scores, ?) {compared} ?", (path, bound)))
            elif name == CLIP_IMAGE_COSINE and source.cosine:
                of_part.append((f"{source.cosine} {compared} ?", (bound,)))
            else:
                of_part.append((f"json_extract({source.scores}, ?) {compared} ?", (f'$."{name}"', bound)))
    if not of_part:
        return of_pair
    condition, values = _joined(of_part)
    return [*of_pair, (source.part.format(condition), values)]


def _joined(terms: _Terms) -> tuple[str, tuple[Any, ...]]:
    return " AND ".join(text for text, _ in terms) or "1", tuple(value for _, values in terms for value in values)


def _page(
    connection: sqlite3.Connection,
    sources: Mapping[Pipeline, _Source],
    wanted: Wanted,
    terms: _Terms,
    total: int | None,
    limit: int,
    after: Cursor,
    order: Order,
) -> tuple[_Found, int, str | None]:
    """What fits, how many rows were read for it, and where the next page begins."""
    if total == 0:
        return [], 0, None
    kinds = tuple(Pipeline) if wanted.kind is None else (wanted.kind,)
    cursors = [_rows(connection, kind, sources[kind], wanted, terms, after[_RANK[kind]], order) for kind in kinds]
    found: _Found = []
    read, place = 0, list(after)
    try:
        for row in heapq.merge(*cursors, key=lambda row: (row["moment"], row["rank"]), reverse=order == "newest"):
            if len(found) == limit or read == MOST_READ:
                return found, read, str(Cursor(*place))
            read, place[row["rank"]] = read + 1, row["place"]
            if row["fits"]:
                found.append((tuple(Pipeline)[row["rank"]], row["id"]))
        return found, read, None
    finally:
        for cursor in cursors:
            cursor.close()


def _rows(
    connection: sqlite3.Connection,
    kind: Pipeline,
    source: _Source,
    wanted: Wanted,
    terms: _Terms,
    after: int,
    order: Order,
) -> sqlite3.Cursor:
    """The rows of one kind beyond `after`, read one by one as they are asked for, each with whether it fits."""
    fits, values = _joined([*terms, *_bounds(source, wanted)])
    beyond, turned = ("<", " DESC") if order == "newest" and after else (">", " DESC" if order == "newest" else "")
    of_job, job = ("", ()) if wanted.job is None else (f" AND {source.job} = ?", (wanted.job,))
    return connection.execute(
        f"SELECT {source.when} AS moment, {_RANK[kind]} AS rank, {source.key} AS place, {source.row} AS id,"
        f" ({fits}) AS fits FROM {source.rows} WHERE {source.where} AND {source.key} {beyond} ?{of_job}"
        f" ORDER BY {source.key}{turned}",
        (*values, after, *job),
    )


def _sample_total(connection: sqlite3.Connection, wanted: Wanted) -> int | None:
    ends = {kind: spec.stages[-1] for kind, spec in PIPELINES.items() if wanted.kind in (None, kind)}
    return _counted(
        connection, wanted, "verdicts", f"verdicts.reason = '' AND stage IN ({_marks(ends)})", ends.values()
    )


def _item_total(connection: sqlite3.Connection, wanted: Wanted) -> int | None:
    columns = {"pipeline": wanted.kind, "state": wanted.state, "stage": wanted.stage, "reason": wanted.reason}
    chosen = {f"counts.{column} = ?": value for column, value in columns.items() if value is not None}
    return _counted(connection, wanted, "counts", " AND ".join(chosen) or "1", chosen.values())


def _counted(
    connection: sqlite3.Connection, wanted: Wanted, table: str, where: str, values: Iterable[object]
) -> int | None:
    """The sum of the counts of all jobs that are wanted; None where they do not tell."""
    if wanted.noun is not None or wanted.bounded:
        return None
    given = list(values)
    if wanted.job is not None:
        where, given = f"{where} AND {table}.job_id = ?", [*given, wanted.job]
    if wanted.profile is not None:
        where += " AND jobs.profile_id IN (SELECT value FROM json_each(?))"
        given.append(json.dumps(_profiles(connection, wanted.profile)))
    query = f"SELECT coalesce(sum(n), 0) FROM {table} JOIN jobs ON jobs.id = {table}.job_id WHERE {where}"
    return int(connection.execute(query, given).fetchone()[0])


def _marks(values: Collection[object]) -> str:
    return ", ".join("?" * len(values))
