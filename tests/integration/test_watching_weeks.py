"""What a person who runs it for weeks reads: the line at a job's end, and the metrics."""

import time
from pathlib import Path

from tests.integration.daemon_process import daemon, drop
from tests.integration.faulty import answer, until
from tests.unit.daemon.test_metrics import parsed

CAPTIONS = [f"a {animal} beside a {obj}" for animal in ("cat", "dog", "cow") for obj in ("bus", "tree", "chair")]


def test_a_job_that_ends_is_one_line_with_its_funnel(tmp_path: Path) -> None:
    with daemon(tmp_path, before="import logging; logging.basicConfig(level='INFO')") as running:
        drop(tmp_path, "first.txt", CAPTIONS)
        (job,) = running.wait_done().jobs
        until(lambda: "job 1 ('first.txt') is done " in running.log.read_text(), "the line")
        (line,) = [line for line in running.log.read_text().splitlines() if "job 1 ('first.txt') is done" in line]
        assert f"captions with a sample {job.sampled}" in line or f" {job.samples}" in line
        drop(tmp_path, "copy.txt", CAPTIONS)
        until(lambda: "job 2 ('copy.txt') is a duplicate of job 1" in running.log.read_text(), "the second line")


def test_metrics_are_what_the_status_says_and_cost_little_more(tmp_path: Path) -> None:
    with daemon(tmp_path) as running:
        drop(tmp_path, "first.txt", CAPTIONS)
        (job,) = running.wait_done().jobs
        told = answer(tmp_path, "/metrics")
        assert told.headers["content-type"].startswith("text/plain; version=")
        found = parsed(told.content)
        assert found["imgdiffd_jobs"]["done",] == 1
        assert found["imgdiffd_samples"]["replacement",] == job.samples
        assert set(found["imgdiffd_resident_bytes"]) == {("daemon",), ("cpu#0",), ("cpu#1",)}
        assert min(found["imgdiffd_resident_bytes"].values()) > 1 << 20
        assert found["imgdiffd_device_ready"] == {("cpu#0",): 1, ("cpu#1",): 1}
        assert sum(found["imgdiffd_batch_items_total"].values()) > len(CAPTIONS)

        def cost(path: str) -> float:
            began = time.perf_counter()
            for _ in range(20):
                answer(tmp_path, path)
            return time.perf_counter() - began

        assert min(cost("/metrics") for _ in range(3)) < 4 * min(cost("/status") for _ in range(3))
