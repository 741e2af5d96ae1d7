"""Which images of an item are wanted, given where it stands and what is to be kept: the one rule for deleting any.

It owns the rule and its words; it does not know rows, files or when anything is deleted.
"""

from dataclasses import dataclass

from imgdiffd.job import ItemState
from imgdiffd.settings import KeepImages


@dataclass(frozen=True, slots=True)
class ObjectImages:
    """What the row of an object taken out names; the last two are empty where it is no sample."""

    source: str
    erased: str
    with_image: str
    without_image: str


@dataclass(frozen=True, slots=True)
class ItemImages:
    """Where an item stands, and the images that its rows name, relative to the image folder.

    `live` says that its job was neither cancelled nor failed, so that what FAILED may be tried again; `removal` is None
    where nothing was to be removed from its pair so far, and `adoptable` where that is still to come. `pair` has two
    names or none; `samples` are the boxed images of all samples.
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
    """Whether images may lie there that no row names yet."""
    return ItemState.READY in (item.state, item.removal)


def named(item: ItemImages) -> frozenset[str]:
    """Every image that its rows name."""
    objects = (name for each in item.objects for name in _of(each))
    return frozenset((*item.pair, *item.samples, *objects)) - {""}


def wanted(item: ItemImages, keep: KeepImages) -> frozenset[str]:
    """Those of the `named` ones that must stay. What is not wanted once never is again under the same `keep`.

    With "samples" these are the images that a sample of either product names, its pair without boxes among them, and
    what a stage may still ask for: the pair of a caption that is not done, or that failed and can be tried again; of
    such a removal the objects too.
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
    """Why image `name` of the item does not lie there, for people; `keep` is the setting of today."""
    if name in wanted(item, "samples"):
        return "missing, though it is wanted"
    return f'not kept: keep_pictures {"is" if keep == "samples" else "was"} "samples"'


def _open(state: ItemState | None, live: bool) -> bool:
    return state is ItemState.READY or (state is ItemState.FAILED and live)


def _of(obj: ObjectImages) -> tuple[str, str, str, str]:
    return obj.source, obj.erased, obj.with_image, obj.without_image
