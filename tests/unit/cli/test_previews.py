"""What `imgdiffd previews` says of each state that a threshold may be in, with a daemon and without."""

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace

import httpx
import pytest
from fastapi import FastAPI
from pydantic import TypeAdapter

from imgdiffd.api.upkeep import previews_route
from imgdiffd.cli import offline
from imgdiffd.cli.main import main
from imgdiffd.method.calibration import Calibration, Side
from imgdiffd.store import PreviewsRow

FOUND = Calibration(
    1900, 640, 598, Side(0.61234, 640, fitted=598, given_up=0.21), Side(None, 640, fitted=598, given_up=0.004)
)
ROW = PreviewsRow("default", "small 1234abcd", 0.4, 0.005, FOUND, 0.122)


def shown(
    rows: Sequence[PreviewsRow], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> str:
    class Answers:
        def __init__(self, _: object) -> None: ...

        def __enter__(self) -> SimpleNamespace:
            return SimpleNamespace(previews=lambda: list(rows))

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(offline, "answers_of", Answers)
    main(["previews", *words])
    return capsys.readouterr().out


def test_thresholds_are_shown_with_their_bound(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = shown([ROW], monkeypatch, capsys)
    assert "profile default, bundle small 1234abcd, previews after 40.0 % of the steps" in said
    assert "1,900 pairs painted to the end" in said
    assert "under 0.6123, 21.0 % of all; 0 of 598 kept ones are lost, at most 0.50 % with 95 % certainty" in said
    assert "too similar: no threshold, since it would give up only 0.4 % of the pairs" in said
    assert "gives up 21.0 % of the pairs, 31.7 % of those that fail: 12.2 % less to paint" in said


@pytest.mark.parametrize(("drifts", "said"), [(0, "no threshold before 87 more kept pairs"), (1, "withdrawn, since")])
def test_what_is_lacking_is_said(
    drifts: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = replace(ROW, calibration=replace(FOUND, below=Side(None, 511, drifts=drifts)))
    told = shown([lacking], monkeypatch, capsys)
    assert said in told
    assert 'mode "on" gives up nothing yet' in told


def test_without_previews_the_way_to_them_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 'generate.abort.mode = "shadow"' in shown([], monkeypatch, capsys)
    assert shown([], monkeypatch, capsys, "--json") == "[]\n"


@pytest.mark.anyio
async def test_what_is_sent_is_what_a_client_reads() -> None:
    async def look() -> Sequence[PreviewsRow]:
        return [ROW]

    app = FastAPI()
    app.include_router(previews_route(look))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://imgdiffd") as http:
        answer = await http.get("/previews")
    assert TypeAdapter(list[PreviewsRow]).validate_python(answer.json()) == [ROW]
