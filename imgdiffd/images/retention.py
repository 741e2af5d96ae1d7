"""Which pictures of an item are wanted, given where it stands and what is to be kept: the one rule for deleting any.

It owns the rule and its words; it does not know rows, files or when anything is deleted.
"""

from dataclasses import dataclass

from imgdiffd.job import ItemState
from imgdiffd.settings import KeepPictures


@dataclass(frozen=True, slots=True)
class ThingPictures:
    """What the row of a thing taken out names; the last two are empty where it is no sample."""

    source: str
    erased: str
    with_image: str
    without_image: str


@dataclass(frozen=True, slots=True)
class ItemPictures:
    """Where an item stands, and the pictures that its rows name, relative to the picture folder.

    `live` says that its job was neither cancelled nor failed, so that what FAILED may be tried again; `removal` is None
    where nothing was to be removed from its pair so far, and `adoptable` where that is still to come. `pair` has two
    names or none; `samples` are the boxed pictures of all samples.
    """

    item: int
    state: ItemState
    live: bool
    removal: ItemState | None
    adoptable: bool
    pair: tuple[str, ...]
    samples: tuple[str, ...]
    things: tuple[ThingPictures, ...]


def unfinished(item: ItemPictures) -> bool:
    """Whether pictures may lie there that no row names yet."""
    return ItemState.READY in (item.state, item.removal)


def named(item: ItemPictures) -> frozenset[str]:
    """Every picture that its rows name."""
    things = (name for each in item.things for name in _of(each))
    return frozenset((*item.pair, *item.samples, *things)) - {""}


def wanted(item: ItemPictures, keep: KeepPictures) -> frozenset[str]:
    """Those of the `named` ones that must stay. What is not wanted once never is again under the same `keep`.

    With "samples" these are the pictures that a sample of either product names, its pair without boxes among them, and
    what a stage may still ask for: the pair of a caption that is not done, or that failed and can be tried again; of
    such a removal the things too.
    """
    if keep == "all":
        return named(item)
    names: set[str] = set(item.samples)
    removal_open = item.adoptable or _open(item.removal, item.live)
    if item.samples or removal_open or _open(item.state, item.live):
        names.update(item.pair)
    for each in item.things:
        if removal_open or each.with_image:
            names.update(_of(each))
    return frozenset(names) - {""}


def why_gone(item: ItemPictures, name: str, keep: KeepPictures) -> str:
    """Why picture `name` of the item does not lie there, for people; `keep` is the setting of today."""
    if name in wanted(item, "samples"):
        return "missing, though it is wanted"
    return f'not kept: keep_pictures {"is" if keep == "samples" else "was"} "samples"'


def _open(state: ItemState | None, live: bool) -> bool:
    return state is ItemState.READY or (state is ItemState.FAILED and live)


def _of(thing: ThingPictures) -> tuple[str, str, str, str]:
    return thing.source, thing.erased, thing.with_image, thing.without_image
