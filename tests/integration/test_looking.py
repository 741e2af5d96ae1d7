"""Looking at the data of a running daemon: lists, images, and that nothing else of the disk is served."""

import json
import os
from collections.abc import Iterator

import httpx
import pytest

from imgdiffd.cli.main import main
from imgdiffd.job import ItemState
from imgdiffd.pipeline import Pipeline
from imgdiffd.store.found import Wanted
from tests.integration.daemon_process import RunningDaemon, daemon, drop

CAPTIONS = ["a cat beside a bus", "a cow beside a tree", "an empty attic", "a dog under a lamp"]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("daemon")
    drop(folder, "captions.txt", CAPTIONS)
    with daemon(folder, IMGDIFFD_REMOVAL="true") as started:
        started.wait(lambda status: bool(status.jobs) and status.jobs[0].removal.sampled > 1, "removal samples")
        yield started


@pytest.fixture
def http(running: RunningDaemon) -> Iterator[httpx.Client]:
    transport = httpx.HTTPTransport(uds=str(running.folder / "s"))
    with httpx.Client(transport=transport, base_url="http://imgdiffd") as client:
        yield client


def refusal(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["detail"])


def test_lists_come_page_by_page_with_filters(running: RunningDaemon, http: httpx.Client) -> None:
    client = running.client
    page = client.samples(limit=3, order="oldest")
    assert (len(page), page.total) == (3, client.samples().total)
    again = client.samples(Wanted(kind=Pipeline.REPLACEMENT), limit=3, order="oldest", after=page.next)
    assert not {each.id for each in again.samples} & {each.id for each in page.samples}
    rejected = client.items(Wanted(state=ItemState.REJECTED, kind=Pipeline.REPLACEMENT))
    captions = client.items(Wanted(kind=Pipeline.REPLACEMENT)).items
    assert rejected.items == tuple(each for each in captions if each.state is ItemState.REJECTED) != ()
    assert client.items(Wanted(noun="lamp", least={"pair.clip_image_cosine": 0.5})).items == ()
    some = http.get("/items?min=pair.clip_image_cosine=0.5&max=clip_text_cosine=0.9,clip_image_cosine=0.9&limit=2")
    assert len(some.json()["items"]) == 2
    assert http.head("/samples").status_code == 200


@pytest.mark.parametrize(
    ("asked", "status", "told"),
    [
        ("/samples?min=foo=1", 422, "query parameter min: there is no score 'foo'"),
        ("/items?max=clip_text_cosine", 422, "query parameter max: 'clip_text_cosine' is not a bound"),
        ("/samples?after=7", 422, "no list ends at '7'"),
        ("/samples?kind=both", 422, "query parameter kind must be 'replacement' or 'removal', not 'both'"),
        ("/items?limit=1001", 422, "query parameter limit must be at most 1000"),
        ("/items?job=9", 404, "there is no job 9"),
        ("/samples?profile=none", 404, "no job has the profile 'none'"),
        ("/samples?state=failed", 422, "query parameter 'state' is unknown"),
        ("/images/000000/9-1-1.png", 404, "the database names no image '000000/9-1-1.png'"),
        ("/images/000001/1-1-1.png", 404, "the database names no image"),
        ("/images/000000/1-1-1.png%2F..%2Fx", 404, "there is no route"),
        ("/images/..%2Fstate.db", 404, "the database names no image"),
        ("/images/000000/..", 404, "there is no route"),
        ("/images/000000", 404, "there is no route"),
        ("/images/000000/", 404, "there is no route"),
        ("/images/000000/1-1-1.png%00", 404, "the database names no image"),
        ("/images/000000/%2E%2E%5C1-1-1.png", 404, "the database names no image"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_a_sentence(
    http: httpx.Client, asked: str, status: int, told: str
) -> None:
    assert told in refusal(http.get(httpx.URL(f"http://imgdiffd{asked}")), status)


def test_every_image_that_a_row_names_is_served(running: RunningDaemon, http: httpx.Client) -> None:
    items, samples = running.client.items(limit=100).items, running.client.samples(limit=100).samples
    names = {name for each in items for name in (each.image1, each.image2) if name}
    names |= {name for each in samples for name in (each.left_image, each.right_image)}
    rejects = [each for each in items if each.state is ItemState.REJECTED and each.image1]
    assert rejects
    assert {Pipeline.REPLACEMENT, Pipeline.REMOVAL} == {each.kind for each in samples}
    for name in sorted(names):
        found = http.get(f"/images/{name}")
        assert found.content == (running.folder / "pictures" / name).read_bytes() == running.client.image(name)
        assert (found.status_code, found.headers["content-type"]) == (200, "image/png")
        assert "immutable" in found.headers["cache-control"]
        assert found.headers["x-content-type-options"] == "nosniff"
        tag = {"If-None-Match": f'"other", {found.headers["etag"]}'}
        assert (http.get(f"/images/{name}", headers=tag).status_code, http.head(f"/images/{name}").content) == (
            304,
            b"",
        )


def test_a_link_or_a_file_that_no_row_names_is_not_served(running: RunningDaemon, http: httpx.Client) -> None:
    pictures = running.folder / "pictures"
    sample = running.client.samples(limit=1).samples[0]
    name = sample.left_image
    (pictures / "000000" / "1-9-1.png").write_bytes(b"secret")
    assert "names no image" in refusal(http.get("/images/000000/1-9-1.png"), 404)
    kept = (pictures / name).rename(running.folder / "kept.png")
    try:
        assert "missing, though it is wanted" in refusal(http.get(f"/images/{name}"), 404)
        (pictures / name).symlink_to(kept)
        assert f"the image {name}: " in refusal(http.get(f"/images/{name}"), 404)
        (pictures / name).unlink()
        os.mkfifo(pictures / name)
        assert f"the image {name}: " in refusal(http.get(f"/images/{name}"), 404)
    finally:
        (pictures / name).unlink()
        kept.rename(pictures / name)
    folder = (pictures / "000000").rename(running.folder / "elsewhere")
    try:
        (pictures / "000000").symlink_to(folder)
        refusal(http.get(f"/images/{name}"), 404)
    finally:
        (pictures / "000000").unlink()
        folder.rename(pictures / "000000")
    assert http.get(f"/images/{name}").status_code == 200


def test_commands_print_tables_for_people_json_for_programs(
    running: RunningDaemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMGDIFFD_CONFIG", os.devnull)
    monkeypatch.setenv("IMGDIFFD_SOCKET_PATH", str(running.folder / "s"))

    def typed(line: str) -> str:
        main(line.split())
        return capsys.readouterr().out

    shown = typed("items --order oldest --limit 2 --kind replacement --max pair.clip_image_cosine=1")
    assert "a cat beside a bus → " in shown
    again = "items --kind replacement --max pair.clip_image_cosine=1 --order oldest --limit 2 --after=2.0"
    assert f"; `imgdiffd {again}` goes on" in shown
    assert "`imgdiffd explain ITEM` tells the story of one" in shown
    assert "3" in typed(again).split()
    assert typed("samples --noun giraffe").startswith("none of ")
    assert typed("items --state failed") == "none\n"
    found = json.loads(typed("samples --limit 2 --json"))
    assert (len(found["samples"]), found["read"]) == (2, 2)
    assert found["samples"][0]["kind"] in ("replacement", "removal")
    with pytest.raises(SystemExit) as ended:
        main(["samples", "--min", "clip_text_cosine>0.5"])
    assert ended.value.code == 2
    assert (
        "--min: 'clip_text_cosine>0.5' is not a bound (write the score's name, = and a number"
        in capsys.readouterr().err
    )
