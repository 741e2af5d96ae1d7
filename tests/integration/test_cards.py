"""A machine with several cards, as its daemon divides them among workers."""

from pathlib import Path

from tests.integration.daemon_process import daemon

FOUR_CARDS = "from tests.fakes import nvml; nvml.install(nvml.four_cards())"


def environment(pid: int | None) -> dict[str, str]:
    """The environment that process `pid` was started with."""
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


def test_each_worker_sees_its_own_card_and_no_other(tmp_path: Path) -> None:
    visible = {"CUDA_VISIBLE_DEVICES": "3,GPU-a,1"}  # ends at the second, which is the beginning of two cards
    with daemon(tmp_path / "one", before=FOUR_CARDS, IMGDIFFD_DEVICES="auto") as running:
        status = running.wait(lambda status: all(device.pid for device in status.devices), "four workers")
        seen = {device.name: environment(device.pid)["CUDA_VISIBLE_DEVICES"] for device in status.devices}
        assert seen == {"cuda:0": "GPU-aa", "cuda:1": "GPU-ab", "cuda:2": "GPU-ba", "cuda:3": "GPU-bb"}
    with daemon(tmp_path / "two", before=FOUR_CARDS, IMGDIFFD_DEVICES="auto", **visible) as running:
        status = running.wait(lambda status: all(device.pid for device in status.devices), "one worker")
        assert {device.name: environment(device.pid)["CUDA_VISIBLE_DEVICES"] for device in status.devices} == {
            "cuda:0": "GPU-bb"
        }
