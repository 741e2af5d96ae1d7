"""Turns what the daemon knows of itself into Prometheus's metric families and their text."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from imgdiffd.fleet.memory import CardReading
from imgdiffd.job import JobState
from imgdiffd.status import SchedulerView, Status
from imgdiffd.store import FunnelCounts, Timing

Rows = Mapping[Any, float]  # a value by the tuple of its labels' values


def gauge(name: str, help_: str, rows: Rows, *labels: str) -> Metric:
    """A value that goes up and down, by the values of its labels."""
    return _filled(GaugeMetricFamily(f"imgdiffd_{name}", help_, labels=labels), rows)


def counter(name: str, help_: str, rows: Rows, *labels: str) -> Metric:
    """A value that only grows while the daemon runs."""
    return _filled(CounterMetricFamily(f"imgdiffd_{name}", help_, labels=labels), rows)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, rows: Rows) -> Metric:
    for values, value in rows.items():
        family.add_metric(values, value)
    return family


def of_status(status: Status) -> list[Metric]:
    """What a status says of the daemon, its devices and its jobs."""
    devices = status.devices
    return [
        gauge("info", "Always 1; the labels say what runs.", {(status.version, status.bundle): 1}, "version", "bundle"),
        gauge("uptime_seconds", "Seconds since the daemon started.", {(): status.uptime_s}),
        gauge("ready", "Whether work can be done.", {(): status.ready}),
        gauge("paused", "Whether a person paused all work.", {(): status.paused}),
        gauge("problems", "How many problems `imgdiffd status` shows.", {(): len(status.problems)}),
        gauge("jobs", "Jobs by state.", {(state,): status.job_counts.get(state, 0) for state in JobState}, "state"),
        gauge(
            "device_ready", "Whether the worker is ready.", {(d.name,): d.state == "ready" for d in devices}, "device"
        ),
        gauge("device_queued", "Items queued for the device.", {(d.name,): d.queued for d in devices}, "device"),
        gauge("device_running", "Items in batches under way.", {(d.name,): d.running for d in devices}, "device"),
        counter("device_restarts", "Workers that were replaced.", {(d.name,): d.restarts for d in devices}, "device"),
        counter("device_busy_seconds", "Seconds spent on batches.", {(d.name,): d.busy_s for d in devices}, "device"),
        *([] if status.scheduler is None else of_scheduler(status.scheduler)),
    ]


def of_scheduler(view: SchedulerView) -> list[Metric]:
    """What the scheduler did since the start, and what waits in it."""
    recoveries = {(code,): count for code, count in view.recoveries.items()}
    return [
        gauge("open_items", "Items held in memory for the devices.", {(): view.open}),
        gauge("open_bytes", "Bytes that their images may take.", {(): view.open_bytes}),
        gauge("queued_items", "Items that wait in the devices' queues.", {(): view.queued}),
        gauge("stranded_items", "Items without a device that has their models.", {(): view.stranded}),
        gauge("held_back", "Whether nothing new is sent to the devices.", {(): bool(view.held_back)}),
        counter(
            "batches_chosen",
            "Batches by why they were chosen.",
            {(code,): count for code, count in view.batches_by_reason.items()},
            "reason",
        ),
        counter("steals", "Batches taken from another device's queue.", {(): view.steals}),
        counter("out_of_memory", "Batches that did not fit.", {(): view.out_of_memory}),
        counter("worker_deaths", "Workers that died with a batch.", {(): view.deaths}),
        counter("broken_batches", "Batches whose stage raised.", {(): view.broken}),
        counter("recoveries", "Failed batches by what was done about them.", recoveries, "reason"),
        counter("quarantined_items", "Items that were set aside.", {(): view.quarantined}),
    ]


def of_timings(timings: Iterable[Timing]) -> list[Metric]:
    """What batches have cost, by stage and device, since the database was made."""
    seconds = SummaryMetricFamily("imgdiffd_batch_seconds", "Seconds a batch.", labels=("stage", "device"))
    for each in timings:
        seconds.add_metric((each.stage, each.device), each.batches, each.seconds)
    items = {(each.stage.value, each.device): each.items for each in timings}
    return [seconds, counter("batch_items", "Items in these batches.", items, "stage", "device")]


def of_totals(totals: FunnelCounts) -> list[Metric]:
    """Where all captions and removals stand. These are gauges: a job that is deleted takes its numbers along."""
    items: dict[tuple[str, ...], float] = {}
    lost: dict[tuple[str, ...], float] = {}
    samples: dict[tuple[str, ...], float] = {}
    for pipeline, progress in totals.progress.items():
        samples[pipeline.value,] = progress.samples
        for stage, states in progress.stages.items():
            items |= {(pipeline.value, stage.value, state.value): count for state, count in states.items()}
        for stage, reasons in progress.lost.items():
            lost |= {(stage.value, reason): count for reason, count in reasons.items()}
    verdicts = {
        (stage.value, reason or "passed"): count
        for stage, reasons in totals.verdicts.items()
        for reason, count in reasons.items()
    }
    return [
        gauge("items", "Captions and removals by where they stand.", items, "pipeline", "stage", "state"),
        gauge("lost_items", "Items that were rejected or failed, by reason.", lost, "stage", "reason"),
        gauge("verdicts", "Verdicts on answers, boxes, regions and objects.", verdicts, "stage", "reason"),
        gauge("samples", "Samples of either product.", samples, "pipeline"),
        gauge("unreadable_records", "Records of caption files that could not be read.", {(): totals.problems}),
        gauge("duplicate_captions", "Captions that were there already.", {(): totals.duplicates}),
    ]


def of_cards(cards: Mapping[str, CardReading]) -> Iterator[Metric]:
    """Memory, load and power of each card, where its driver tells."""
    for name, help_, field in (
        ("gpu_memory_used_bytes", "Memory in use on the card, by anybody.", "used_bytes"),
        ("gpu_memory_total_bytes", "Memory of the card.", "total_bytes"),
        ("gpu_utilisation_ratio", "Share of the time in which a kernel ran.", "busy"),
        ("gpu_power_watts", "Power that the card draws.", "watts"),
    ):
        rows = {(device,): value for device, card in cards.items() if (value := getattr(card, field)) is not None}
        if rows:
            yield gauge(name, help_, rows, "device")


class _Ready(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def text_of(families: list[Metric]) -> bytes:
    """The families in Prometheus's text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Ready(families))
    return generate_latest(registry)
