"""The metrics: they parse, they add up to what the status says, and no label grows with the work."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from imgdiffd.daemon.metric_families import of_cards, of_status, of_timings, text_of
from imgdiffd.daemon.metrics import Metrics
from imgdiffd.fleet.memory import readings
from imgdiffd.pipeline import Stage
from imgdiffd.status import Status
from imgdiffd.store import Store, Timing
from tests.fakes.answers import captions
from tests.fakes.nvml import GIB, FakeCard, FakeDriver
from tests.fakes.store_driver import finish, submit
from tests.unit.daemon.test_notify import DEVICE, STATUS

Samples = dict[str, dict[tuple[str, ...], float]]


def parsed(text: bytes) -> Samples:
    """The value of every sample, by its name and its labels' values in the order of their names."""
    found: Samples = {}
    for family in text_string_to_metric_families(text.decode()):
        assert family.documentation
        assert family.type != "unknown"
        for sample in family.samples:
            key = tuple(sample.labels[label] for label in sorted(sample.labels))
            assert key not in found.setdefault(sample.name, {}), "twice"
            found[sample.name][key] = sample.value
    return found


def test_cards_tell_memory_load_and_power_where_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    told = FakeCard("GPU-a", free_gib=50, rates=SimpleNamespace(gpu=75, memory=20), milliwatts=412_500)
    monkeypatch.setitem(sys.modules, "pynvml", FakeDriver([told, FakeCard("GPU-b", free_gib=50)]))
    cards = readings({"cpu": "cpu", "cuda:0": "GPU-a", "cuda:1": "GPU-b"})
    found = parsed(text_of(list(of_cards(cards))))
    assert found["imgdiffd_gpu_memory_used_bytes"] == {("cuda:0",): 30 * GIB, ("cuda:1",): 30 * GIB}
    assert found["imgdiffd_gpu_memory_total_bytes"] == {("cuda:0",): 80 * GIB, ("cuda:1",): 80 * GIB}
    assert found["imgdiffd_gpu_utilisation_ratio"] == {("cuda:0",): 0.75}
    assert found["imgdiffd_gpu_power_watts"] == {("cuda:0",): 412.5}


def test_a_status_and_the_costs_of_batches_become_metrics() -> None:
    status = STATUS.model_copy(update={"devices": (DEVICE,), "job_counts": {"done": 4}, "paused": True})
    timings = [Timing(Stage.RENDER, "cpu", batches=3, items=12, seconds=6.0, last_at=1.0)]
    found = parsed(text_of([*of_status(status), *of_timings(timings)]))
    assert found["imgdiffd_ready"] == {(): 1}
    assert found["imgdiffd_paused"] == {(): 1}
    assert found["imgdiffd_info"] == {("mini", "1"): 1}
    assert found["imgdiffd_jobs"]["done",] == 4
    assert found["imgdiffd_jobs"]["active",] == 0
    assert found["imgdiffd_device_running"] == {("cpu",): 1}
    assert found["imgdiffd_batch_seconds_count"] == {("cpu", "render"): 3}
    assert found["imgdiffd_batch_seconds_sum"] == {("cpu", "render"): 6}
    assert found["imgdiffd_batch_items_total"] == {("cpu", "render"): 12}


@pytest.mark.anyio
async def test_counts_come_from_the_database_without_labels_by_job(tmp_path: Path) -> None:
    async def status() -> Status:
        return STATUS

    async with Store.open(tmp_path / "state.db", removal=True) as store:
        await submit(store, captions(4), name="first")
        await finish(store)
        metrics = Metrics(store, status, {"cpu": "cpu"}, tmp_path / "state.db")
        found = parsed(await metrics.text())
        assert found["imgdiffd_items"]["replacement", "render", "sampled"] == 4
        assert found["imgdiffd_samples"]["replacement",] == len(await store.samples())
        assert found["imgdiffd_disk_free_bytes"][()] > 0
        assert found["imgdiffd_database_bytes"]["database",] > 0
        names = {name: set(values) for name, values in found.items()}
        for number in range(20):
            await submit(store, captions(1, start=100 + number), name=f"job {number}")
        await finish(store)
        fresh = Metrics(store, status, {"cpu": "cpu"}, tmp_path / "state.db")
        after = parsed(await fresh.text())
        assert {name: set(values) for name, values in after.items()} == names
        assert after["imgdiffd_items"]["replacement", "render", "sampled"] == 24
