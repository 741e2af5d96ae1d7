"""Drives a real store as the daemon does: submits captions, takes tasks, records made-up answers."""

import hashlib
from collections.abc import Sequence

from imgdiffd.job import CaptionRecord, ItemState
from imgdiffd.method.profile import Profile
from imgdiffd.pipeline import Pipeline, Stage, Task
from imgdiffd.store import JobRow, Progress, Recorded, Store
from tests.fakes.answers import PROFILE, answers, captions

MANY = 100_000


async def submit(
    store: Store,
    records: Sequence[CaptionRecord] | int = 1,
    *,
    name: str = "captions",
    priority: int = 0,
    profile: Profile = PROFILE,
) -> JobRow:
    """Add a job and read it to its end."""
    lines = captions(records) if isinstance(records, int) else records
    digest = hashlib.sha256(f"{name}{[line.text for line in lines]}".encode()).hexdigest()
    job = await store.add_job(name, f"/inbox/{name}", digest, profile, priority)
    await store.add_captions(job.id, lines)
    return await store.finish_reading(job.id)


async def record(
    store: Store, tasks: Sequence[Task], *, passes: bool = True, boxes: int = 2, profile: Profile = PROFILE
) -> Recorded:
    """Record made-up answers for a batch of tasks, all in the same stage."""
    stage = tasks[0].stage
    inputs = await store.stage_inputs(stage, [task.item for task in tasks])
    outputs = answers(inputs, passes, boxes)
    return await store.record(stage, "cpu:0", profile, outputs, {task.item: task.attempt for task in tasks}, 0.5)


async def ready(store: Store) -> list[Task]:
    """All tasks that could be taken now."""
    return await store.ready_tasks(MANY, ())


async def advance_to(store: Store, stage: Stage) -> list[Task]:
    """Let every ready item pass until all of them wait in `stage`."""
    while tasks := [task for task in await ready(store) if task.stage is not stage]:
        await record(store, [task for task in tasks if task.stage is tasks[0].stage])
    return await ready(store)


async def finish(store: Store) -> None:
    """Let every ready item pass to its end."""
    while tasks := await ready(store):
        await record(store, [task for task in tasks if task.stage is tasks[0].stage])


async def progress_of(store: Store, job: int | None = None, pipeline: Pipeline = Pipeline.REPLACEMENT) -> Progress:
    """How far the items of one pipeline are, of `job` or of all jobs."""
    return (await store.progress(job))[pipeline]


async def states_of(store: Store, job: int) -> dict[ItemState, int]:
    """How many captions of the job are in each state."""
    progress = await progress_of(store, job)
    return {state: number for state in ItemState if (number := progress.in_state(state))}
