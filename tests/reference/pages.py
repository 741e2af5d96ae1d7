"""The pages for people, README and docs/, cut into fenced blocks, links and headings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
RUN = ("sh", "console", "python")  # the languages of blocks that tests run
_NOT_RUN = re.compile(r"<!-- not run: (\S.*) -->")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `line` is that of its fence, `reason` says why it cannot run in a test, if so."""

    page: Path
    line: int
    language: str
    text: str
    reason: str = ""

    @property
    def where(self) -> str:
        """Page and line, as editors jump to them."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order. Raises ValueError for one that never ends."""
    language, start, inside, before = "", 0, list[str](), ""
    for number, line in enumerate(page.read_text("utf-8").splitlines(), 1):
        if not line.startswith("```"):
            inside.append(line)
            before = line if not start else before
        elif not start:
            language, start, inside = line[3:], number, []
        else:
            mark = _NOT_RUN.fullmatch(before)
            yield Block(page, start, language, "\n".join(inside) + "\n", mark[1] if mark else "")
            start, before = 0, ""
    if start:
        raise ValueError(f"{page}:{start}: this block has no end")


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What may stand behind `#` in a link to the page, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
