"""A store whose work the fake stages do, profiles to bring its captions under, and all that a job has, to compare."""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from imgdiffd.images.retention import wanted
from imgdiffd.job import CaptionRecord
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import Stage
from imgdiffd.settings import KeepImages
from imgdiffd.store import BundleRow, ModelRow, Store
from imgdiffd.testing.stages import FakeStages
from tests.fakes.answers import PROFILE
from tests.fakes.store_driver import ready, submit

MODELS = BundleRow("fakes", {"painter": ModelRow("fake@1", "", "a"), "clip": ModelRow("fake@2", "MIT", "b")})
CAPTIONS = [CaptionRecord(f"a cat on mat number {n}", f"id-{n}", n) for n in range(1, 13)]


def changed(name: str, profile: Profile = PROFILE, **sections: Mapping[str, Any]) -> Profile:
    """`profile` under another name, with some settings changed."""
    data = profile.model_dump()
    for section, settings in sections.items():
        data[section] = {**data[section], **settings}
    return Profile.model_validate({**data, "name": name})


# What the fakes score: pairs 0.95, crops 0.1 and 0.2, nouns and matches 0.9, texts 0.3.
NOTHING_NEW = changed("nothing new", pair={"above": 0.93}, describe={"match_above": 0.5})
ONE_REGION = changed("one region", locate={"regions": 1})
NO_REGION = changed("no region", locate={"crop_cosine_below": 0.05})
OTHER_SIDES = changed("other sides", contrast={"sides": "original_left"})
NEW_TEXTS = changed("new texts", describe={"prompt": "What is in {box}?"})
NO_PAIR = changed("no pair", pair={"above": 0.97})
REPAINTED = changed("repainted", generate={"steps": 9})
RESEEDED = changed("reseeded").model_copy(update={"seed": 5})
LESS_REMOVED = changed("less removed", removal={"targets": 1})
STRICT_REMOVAL = changed("strict removal", removal={"original_above": 0.95})
ALL = [NOTHING_NEW, ONE_REGION, NO_REGION, OTHER_SIDES, NEW_TEXTS, NO_PAIR, REPAINTED, RESEEDED]
ALL += [LESS_REMOVED, STRICT_REMOVAL]


class Bench:
    """A store whose work the fake stages do; `ran` counts the items of each stage."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.images = folder / "pictures"
        self.ran: dict[Stage, int] = {}
        self._stages = FakeStages(self.images)

    async def finish(self) -> dict[Stage, int]:
        """Do all that waits; returns how much that was, by stage."""
        self.ran = {}
        while tasks := await ready(self.store):
            stage, group = tasks[0].stage, tasks[0].group
            batch = [task for task in tasks if (task.stage, task.group) == (stage, group)]
            profile = await self.store.profile_of(group)
            inputs = await self.store.stage_inputs(stage, [task.item for task in batch])
            outputs = self._stages.run(profile, inputs)
            self._stages.take_writes()()
            await self.store.record(stage, "cpu:0", profile, outputs, {t.item: t.attempt for t in batch}, 0.5)
            self.ran[stage] = self.ran.get(stage, 0) + len(batch)
        return self.ran


@asynccontextmanager
async def bench(folder: Path, models: BundleRow = MODELS, *, removal: bool = True) -> AsyncIterator[Bench]:
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    async with Store.open(
        folder / "state.db", models=models, images=folder / "pictures", removal=removal, bundle="fakes"
    ) as store:
        yield Bench(store, folder)


async def content(there: Bench, job: int, keep: KeepImages = "all") -> object:
    """All that a job has: the stories of its captions and the bytes of images to `keep`, without ids and times."""
    items = await there.store.items_of(job)
    rows = await there.store.images(items)
    told = []
    for item in items:
        story = asdict(await there.store.item_story(item))
        if story["job"]["id"] == job:
            files = [there.images / name for name in sorted(wanted(rows[item], keep))]
            told.append((_plain(story), [(file.exists() and _sha(file)) for file in files]))
    funnel = await there.store.funnel(job)
    return told, replace(funnel, duplicates=0)


def _sha(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _plain(of: Any, key: str = "") -> Any:
    """`of` without what differs between any two runs."""
    left_out = {"id", "item", "job", "job_name", "group", "source", "created_at", "updated_at", "profiles"}
    names = {"image1", "image2", "left_image", "right_image", "source", "erased", "with_image", "without_image"}
    if isinstance(of, dict):
        return {name: _plain(each, name) for name, each in of.items() if name not in left_out}
    if isinstance(of, tuple | list):
        return [_plain(each) for each in of]
    return bool(of) if key in names else of


async def scratch(
    folder: Path,
    profile: Profile,
    records: Sequence[CaptionRecord] = CAPTIONS,
    *,
    removal: bool = True,
    keep: KeepImages = "all",
) -> object:
    """What a run under the profile alone gives."""
    async with bench(folder, removal=removal) as there:
        job = await submit(there.store, records, profile=profile)
        await there.finish()
        return await content(there, job.id, keep)
