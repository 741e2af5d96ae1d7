"""What the API shows of the data: lists from the store, and images that its rows name."""

from pathlib import Path

from anyio import to_thread

from imgdiffd.api.looking import TYPES, ImageFile
from imgdiffd.daemon.cleanup import Cleanup
from imgdiffd.errors import InputError
from imgdiffd.images.files import item_of, read_image
from imgdiffd.images.retention import named
from imgdiffd.store import Store
from imgdiffd.store.found import Cursor, ItemPage, Order, SamplePage, Wanted


class DaemonLooking:
    """The `Looking` of a running daemon."""

    def __init__(self, store: Store, images: Path, cleanup: Cleanup) -> None:
        self._store = store
        self._images = images
        self._cleanup = cleanup

    async def sample_page(self, wanted: Wanted, limit: int, after: Cursor, order: Order) -> SamplePage:
        """A part of the samples that are wanted."""
        return await self._store.sample_page(wanted, limit, after, order)

    async def item_page(self, wanted: Wanted, limit: int, after: Cursor, order: Order) -> ItemPage:
        """A part of the items that are wanted."""
        return await self._store.item_page(wanted, limit, after, order)

    async def image(self, name: str) -> ImageFile:
        """The image that a row of its caption names so. Raises InputError for other names, and if its file is gone."""
        item = item_of(name) or 0
        rows = await self._store.images(range(item, item + 1))
        if item not in rows or name not in named(rows[item]) or Path(name).suffix not in TYPES:
            hint = "samples and items name theirs"
            raise InputError(f"the database names no image {name[:200]!r}", code="unknown_image", hint=hint)
        try:
            return ImageFile(*await to_thread.run_sync(read_image, self._images, name))
        except OSError as error:
            why = (await self._cleanup.gone(item)).get(name) or f"cannot be read: {error.strerror}"
            hint = f"`imgdiffd explain {item}` lists what is there"
            raise InputError(f"the image {name}: {why}", code="image_gone", hint=hint) from error
