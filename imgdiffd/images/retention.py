"""Which images of an item are wanted, given its state and the setting for what to keep: the one rule for deletion."""

from dataclasses import dataclass

from imgdiffd.job import ItemState
from imgdiffd.settings import KeepImages


@dataclass(frozen=True, slots=True)
class ObjectImages:
    """The images in the row of an object that was removed; the last two are empty if it did not become a sample."""

    source: str
    erased: str
    with_image: str
    without_image: str


@dataclass(frozen=True, slots=True)
class ItemImages:
    """The state of an item, and the images that its rows name, relative to the image folder.

    `live` says that its job was neither cancelled nor failed, so that what FAILED may be tried again. `removal` is None
    if nothing was to be removed from its pair so far, and `backfillable` says that this may still come. `pair` has two
    names or none; `samples` are the images of all samples, with their boxes.
    """

    item: int
    state: ItemState
    live: bool
    removal: ItemState | None
    backfillable: bool
    pair: tuple[str, ...]
    samples: tuple[str, ...]
    objects: tuple[ObjectImages, ...]


def unfinished(item: ItemImages) -> bool:
    """Whether there may be images of it that no row names yet."""
    return ItemState.READY in (item.state, item.removal)


def named(item: ItemImages) -> frozenset[str]:
    """Every image that its rows name."""
    objects = (name for each in item.objects for name in _of(each))
    return frozenset((*item.pair, *item.samples, *objects)) - {""}


def wanted(item: ItemImages, keep: KeepImages) -> frozenset[str]:
    """Those of the `named` ones that must stay. What is not wanted now never will be under the same `keep`.

    With "samples" these are the images of the samples of either product, with the pairs that they were made from, and
    what a stage may still need: the pair of an item that is not done, or that failed and can be tried again, and in a
    removal the images of its objects too.
    """
    if keep == "all":
        return named(item)
    names: set[str] = set(item.samples)
    removal_open = item.backfillable or _open(item.removal, item.live)
    if item.samples or removal_open or _open(item.state, item.live):
        names.update(item.pair)
    for each in item.objects:
        if removal_open or each.with_image:
            names.update(_of(each))
    return frozenset(names) - {""}


def why_gone(item: ItemImages, name: str, keep: KeepImages) -> str:
    """Why image `name` of the item is not there, for people; `keep` is the present setting."""
    if name in wanted(item, "samples"):
        return "missing, though it is wanted"
    return f'not kept: keep_pictures {"is" if keep == "samples" else "was"} "samples"'


def _open(state: ItemState | None, live: bool) -> bool:
    return state is ItemState.READY or (state is ItemState.FAILED and live)


def _of(obj: ObjectImages) -> tuple[str, str, str, str]:
    return obj.source, obj.erased, obj.with_image, obj.without_image
