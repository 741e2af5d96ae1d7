"""Captions through the pipeline in one process: the real models, stages, store and decisions, without a scheduler."""

import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from imgdiffd import durable, stages
from imgdiffd.bundles.bundle import load_bundle
from imgdiffd.job import CaptionRecord
from imgdiffd.method.profile import Profile
from imgdiffd.mini.scene_judge import SceneJudge
from imgdiffd.mini.world import HELD_OUT_SEED, draw_scene
from imgdiffd.models.loading import Models, load_models
from imgdiffd.pipeline import DEPTH, STAGES, Stage
from imgdiffd.stages.images import Images
from imgdiffd.store import ItemStory, Store

_ROOM = 4096


def held_out_captions(count: int, seed: int) -> list[str]:
    """`count` different captions of scenes that no model was trained on."""
    rng = np.random.default_rng([HELD_OUT_SEED, seed])
    captions: dict[str, None] = {}
    while len(captions) < count:
        captions[draw_scene(rng).caption] = None
    return list(captions)


class Harness:
    """The miniature bundle's models and judge on the CPU, with a folder for images and a database."""

    def __init__(self, folder: Path) -> None:
        bundle = load_bundle("mini")
        self.folder = folder
        self.models: Models = load_models(bundle, bundle.roles, torch.device("cpu"), lambda _: None, compile=False)
        self.judge = SceneJudge.load(bundle.path.parent / "judge")
        durable.make_folder(folder / "pictures")
        self.images = Images(folder / "pictures", torch.device("cpu"))

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        """The harness's database."""
        async with Store.open(self.folder / "state.db") as store:
            yield store

    async def run(
        self, store: Store, captions: Sequence[str], profile: Profile, last: Stage = Stage.RENDER
    ) -> list[ItemStory]:
        """Take `captions` through all stages up to `last`; returns everything known about each, in order."""
        digest = hashlib.sha256("\n".join([profile.model_dump_json(), *captions]).encode()).hexdigest()
        job = await store.add_job(f"{profile.name} trial", "", digest, profile)
        records = [CaptionRecord(text, "", line) for line, text in enumerate(captions, 1)]
        await store.add_captions(job.id, records, ())
        await store.finish_reading(job.id)
        first: list[int] = []
        while tasks := await store.ready_tasks(_ROOM, ()):
            first = first or [task.item for task in tasks]
            stage = tasks[-1].stage  # upstream first, for full batches: nobody waits for an early result here
            if DEPTH[stage] > DEPTH[last]:
                await store.cancel(job.id)
                break
            batch = [task for task in tasks if task.stage == stage][: STAGES[stage].batch_limit]
            inputs = await store.stage_inputs(stage, [task.item for task in batch])
            begun = time.monotonic()
            with torch.inference_mode():
                outputs = stages.run(stage, self.models, profile, inputs, self.images)
            attempts = {task.item: task.attempt for task in batch}
            await store.record(stage, "trial", profile, outputs, attempts, time.monotonic() - begun)
        return [await store.item_story(item) for item in sorted(first)]

    def pixels(self, name: str) -> NDArray[np.uint8]:
        """The image of that name, uint8 HxWx3."""
        return np.ascontiguousarray(self.images.read(name).permute(1, 2, 0).numpy())
