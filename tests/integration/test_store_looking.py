"""Lists of samples and items: every filter, both orders, and what a page reads."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from imgdiffd.errors import InputError
from imgdiffd.job import ItemState
from imgdiffd.pipeline import Pipeline, Stage
from imgdiffd.store import Store, looking
from imgdiffd.store.found import Cursor, Order, Wanted, cursor_of
from imgdiffd.store.looking import list_items_by, list_samples_by
from tests.fakes.answers import PROFILE, captions
from tests.fakes.store_driver import advance_to, finish, ready, record, submit

OTHER = PROFILE.model_copy(update={"name": "other"})
ORDERS: tuple[Order, ...] = ("oldest", "newest")


async def _fill(path: Path) -> None:
    """Job 1: three captions with two samples and two removal samples each, one rejected; job 2: one caption, OTHER."""
    async with Store.open(path, removal=True) as store:
        await submit(store, captions(4), name="a")
        tasks = await advance_to(store, Stage.COMPARE)
        await record(store, tasks[:3])
        await record(store, tasks[3:], passes=False)
        await finish(store)
        await submit(store, captions(1, start=9), name="b", profile=OTHER)
        while found := await ready(store):
            await record(store, [each for each in found if each.stage is found[0].stage], profile=OTHER)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("looking") / "s.db"
    anyio.run(_fill, path)
    return path


@pytest.fixture
def connection(filled: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(filled)) as connection:
        connection.row_factory = sqlite3.Row
        yield connection


def items(connection: sqlite3.Connection, wanted: Wanted) -> list[int]:
    return [each.item for each in list_items_by(connection, wanted, 100, Cursor(), "oldest").items]


def samples(connection: sqlite3.Connection, wanted: Wanted) -> list[tuple[Pipeline, int, int]]:
    page = list_samples_by(connection, wanted, 100, Cursor(), "oldest")
    return [(each.kind, each.item, each.number) for each in page.samples]


def test_items_are_chosen_by_what_they_are(connection: sqlite3.Connection) -> None:
    assert items(connection, Wanted(kind=Pipeline.REPLACEMENT)) == [1, 2, 3, 4, 8]
    assert items(connection, Wanted()) == [1, 5, 2, 6, 3, 7, 4, 8, 9]
    assert items(connection, Wanted(kind=Pipeline.REMOVAL, job=1)) == [5, 6, 7]
    assert items(connection, Wanted(state=ItemState.REJECTED)) == [4]
    assert items(connection, Wanted(stage=Stage.COMPARE, reason="pair_too_different")) == [4]
    assert items(connection, Wanted(profile="other")) == [8, 9]
    assert items(connection, Wanted(job=2, noun=" Dog ")) == [8, 9]
    assert items(connection, Wanted(noun="mat")) == []
    assert items(connection, Wanted(most={"pair.clip_image_cosine": 0.9})) == [4]
    assert items(connection, Wanted(least={"clip_image_cosine": 0.15}, kind=Pipeline.REMOVAL)) == [5, 6, 7, 9]
    both = Wanted(least={"clip_image_cosine": 0.15}, most={"clip_image_cosine": 0.19})
    assert items(connection, both) == []  # one region lies above the one bound, another below the other


def test_samples_are_chosen_by_what_they_are(connection: sqlite3.Connection) -> None:
    assert len(samples(connection, Wanted())) == 16
    assert samples(connection, Wanted(job=2)) == [
        (Pipeline.REPLACEMENT, 8, 0),
        (Pipeline.REPLACEMENT, 8, 1),
        (Pipeline.REMOVAL, 8, 0),
        (Pipeline.REMOVAL, 8, 0),
    ]
    few = Wanted(most={"clip_image_cosine": 0.15}, kind=Pipeline.REPLACEMENT)
    assert samples(connection, few) == [(Pipeline.REPLACEMENT, item, 0) for item in (1, 2, 3, 8)]
    assert samples(connection, Wanted(least={"blip_itc_cosine.erased": 0.2})) == []
    assert samples(connection, Wanted(least={"blip_itm_probability.noun1": -1})) == []  # never taken: no bounds hold it


def test_a_sample_says_what_its_sides_show(connection: sqlite3.Connection) -> None:
    page = list_samples_by(connection, Wanted(job=2), 100, Cursor(), "oldest")
    replaced, removed = page.samples[0], page.samples[-1]
    assert {replaced.left_text, replaced.right_text} == {"a cat", "a dog"}
    assert (replaced.answer, replaced.nouns1, replaced.profile) == ("A cat became a dog.", ("cat",), "other")
    assert replaced.scores["pair.clip_image_cosine"] == 0.95
    holder = "left" if removed.answer == "A" else "right"
    assert (getattr(removed, f"{holder}_text"), "") in (
        (removed.left_text, removed.right_text),
        (removed.right_text, removed.left_text),
    )
    assert "with" in getattr(removed, f"{holder}_image")
    assert removed.scores["clip_image_cosine"] == 0.2


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [1, 3, 100])
@pytest.mark.parametrize("wanted", [Wanted(), Wanted(job=1), Wanted(noun="dog"), Wanted(kind=Pipeline.REMOVAL)])
def test_pages_of_any_size_give_the_same_list(
    connection: sqlite3.Connection, order: Order, size: int, wanted: Wanted
) -> None:
    for ask, rows in ((list_samples_by, "samples"), (list_items_by, "items")):
        whole = getattr(ask(connection, wanted, 1000, Cursor(), order), rows)
        page = ask(connection, wanted, size, Cursor(), order)
        found = list(getattr(page, rows))
        while page.next is not None:
            page = ask(connection, wanted, size, cursor_of(page.next), order)
            found += getattr(page, rows)
        assert found == list(whole)
        assert found[::-1] == list(getattr(ask(connection, wanted, 1000, Cursor(), ORDERS[order == "oldest"]), rows))


def test_totals_are_those_of_the_whole_list(connection: sqlite3.Connection) -> None:
    for wanted in (Wanted(), Wanted(job=1), Wanted(kind=Pipeline.REMOVAL), Wanted(profile="other"), Wanted(job=2)):
        assert list_samples_by(connection, wanted, 1, Cursor(), "newest").total == len(samples(connection, wanted))
        assert list_items_by(connection, wanted, 1, Cursor(), "newest").total == len(items(connection, wanted))
    assert list_items_by(connection, Wanted(state=ItemState.SAMPLED, job=1), 1, Cursor(), "newest").total == 6
    assert list_items_by(connection, Wanted(noun="dog"), 1, Cursor(), "newest").total is None


def test_a_page_ends_after_so_many_rows_and_says_so(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "MOST_READ", 3)
    page = list_items_by(connection, Wanted(noun="mat"), 10, Cursor(), "oldest")
    assert (page.items, page.read, page.next) == ((), 3, "2.1")
    page = list_items_by(connection, Wanted(noun="mat"), 10, Cursor(8, 7), "oldest")
    assert (page.items, page.read, page.next) == ((), 1, None)
    assert list_items_by(connection, Wanted(reason="none_such"), 10, Cursor(), "oldest").read == 0  # counts tell


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("job", [None, 1])
def test_lists_are_read_along_indexes_without_a_sort(
    connection: sqlite3.Connection, order: Order, job: int | None
) -> None:
    asked: list[str] = []
    connection.set_trace_callback(asked.append)
    wanted = Wanted(job=job, noun="dog", most={"clip_text_cosine": 0.5, "pair.clip_image_cosine": 1})
    for ask in (list_samples_by, list_items_by):
        ask(connection, wanted, 1, Cursor(5, 5), order)
    connection.set_trace_callback(None)
    lists = [each for each in asked if " AS moment" in each]
    assert len(lists) == 4
    for each in lists:
        first, *plan = [row["detail"] for row in connection.execute(f"EXPLAIN QUERY PLAN {each}")]
        assert first.startswith("SEARCH"), first
        assert not [step for step in plan if "TEMP B-TREE" in step or step.startswith("SCAN")]


def test_what_is_unknown_is_refused(connection: sqlite3.Connection) -> None:
    with pytest.raises(InputError, match="there is no job 9"):
        items(connection, Wanted(job=9))
    with pytest.raises(InputError, match=r"no job has the profile 'x' .*default, other"):
        samples(connection, Wanted(profile="x"))
    for text in ("", "1", "1.2.3", "-1.0", "1.x", "9" * 19 + ".0", "\u0663.0"):
        with pytest.raises(InputError, match="give the `next` of the page before"):
            cursor_of(text)
