"""How lists of samples and items look in a terminal: one line each, cut by columns, nothing wrapped."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from rich.text import Text

from imgdiffd.cli.terminal import ByWidth, cut, plain
from imgdiffd.job import ItemState
from imgdiffd.store.found import ListedItem, ListedSample, Wanted

_STATES = {
    ItemState.SAMPLED: "green",
    ItemState.REJECTED: "yellow",
    ItemState.FAILED: "red",
    ItemState.CANCELLED: "yellow",
}
_Cells = tuple[Column, Sequence[str | Text]]


def samples_table(samples: Sequence[ListedSample], wanted: Wanted) -> ByWidth:
    """One row a sample: what its boxes show, how they differ, and the scores that were asked about."""
    item = _numbers("item", (sample.item for sample in samples))
    left, right = (_texts(side, (getattr(each, f"{side}_text") for each in samples)) for side in ("left", "right"))
    wide = [item, _numbers("job", (sample.job for sample in samples))]
    if wanted.kind is None:
        wide.append((Column("kind", no_wrap=True), [sample.kind for sample in samples]))
    wide += [left, right, _texts("answer", (sample.answer for sample in samples))]
    return ByWidth(
        _table([*wide, *_scores(wanted, [sample.scores for sample in samples])]), _table([item, left, right])
    )


def items_table(items: Sequence[ListedItem], wanted: Wanted) -> ByWidth:
    """One row an item: where it is, why it ended there, its captions, and the pair's scores that were asked about."""
    item = _numbers("item", (each.item for each in items))
    state = (Column("state", no_wrap=True), [plain(each.state, _STATES.get(each.state, "")) for each in items])
    captions = _texts("caption", map(_captions, items))
    wide = [
        item,
        _numbers("job", (each.job for each in items)),
        state,
        (Column("stage", no_wrap=True), [each.stage for each in items]),
        _texts("reason", (each.reason for each in items)),
        captions,
        *_scores(wanted, [each.scores for each in items]),
    ]
    return ByWidth(_table(wide), _table([item, state, captions]))


def _captions(item: ListedItem) -> str:
    caption = item.caption or f"no caption ({item.source_id})"
    return f"{caption} → {item.caption2}" if item.caption2 else caption


def _numbers(head: str, numbers: Iterable[int]) -> _Cells:
    cells = [str(number) for number in numbers]
    return Column(head, justify="right", no_wrap=True, min_width=max(map(len, cells), default=0)), cells


def _texts(head: str, texts: Iterable[str]) -> _Cells:
    return Column(head, min_width=4), [cut(" ".join(text.split())) for text in texts]


def _scores(wanted: Wanted, scores: Sequence[Mapping[str, float]]) -> Iterator[_Cells]:
    for name in wanted.bounded:
        if any(name in each for each in scores):
            cells = [f"{each[name]:.4f}" if name in each else "" for each in scores]
            yield Column(cut(name), justify="right", no_wrap=True, min_width=6, max_width=12), cells


def _table(columns: Sequence[_Cells]) -> Table:
    table = Table(*(column for column, _ in columns), box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for row in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(*row)
    return table
