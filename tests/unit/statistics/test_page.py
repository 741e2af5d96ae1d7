"""The page of statistics stands alone and shows what it was given, whatever that is."""

import re
from html.parser import HTMLParser
from pathlib import Path

from imgdiffd.statistics.gathering import gather
from imgdiffd.statistics.page import page
from imgdiffd.statistics.tally import Seen
from imgdiffd.status import Funnel, FunnelStep

NOWHERE = (Path("/nowhere/0.jpg"), Path("/nowhere/1.jpg"))


class Checked(HTMLParser):
    """Raises where a tag is not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.said = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said += data


def read(text: str) -> str:
    parser = Checked()
    parser.feed(text)
    assert parser.open == []
    return parser.said


def test_page_shows_figures_beside_the_papers_and_needs_nothing_else() -> None:
    seen = Seen(("a <b>red</b> cat", "a red dog"), "1", NOWHERE, "a cat", {"cosine": 0.5})
    funnel = Funnel(steps=(FunnelStep(name="rewritten", count=3, base=4, lost={"meta_talk": 1}),))
    found = gather([("replacement", seen)] * 40, "a <folder>", ordered=True, funnel=funnel)
    text = page(found)
    said = read(text)
    for shown in (
        "a <folder>",
        "1,203",
        "3,680",
        "52.06 %",
        "replaced → replacing",
        "meta_talk 1",
        "cat → dog",
        "cosine",
    ):
        assert shown in said
    assert "Colour words never change" in said
    assert not re.search(r"https?:|<script|<link|src=|url\(|@import", text)
    assert "prefers-color-scheme: dark" in text


def test_page_of_nothing_says_so() -> None:
    assert "no samples yet" in read(page(gather([], "empty.db", ordered=True)))
