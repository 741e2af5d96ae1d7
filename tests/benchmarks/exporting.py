"""`make bench-export`: peak memory and time of an export by format, for ever more samples; it should not grow."""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from imgdiffd.export.dataset import export_dataset
from imgdiffd.export.formats.table import FORMATS
from imgdiffd.export.sample import Choice
from imgdiffd.store import SampleRow
from tests.fakes.made_samples import MadeSamples


class Many(MadeSamples):
    """So many samples, which share two images."""

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(folder, [1])
        self._count = count

    def samples(self, jobs: object = None) -> Iterator[SampleRow]:
        """One by one."""
        for number in range(self._count):
            yield replace(self.rows[0], item=number + 1, key=f"{number:032x}", caption1=f"caption {number}")


def export(layout: str, count: int) -> None:
    """Exports them in this process and prints what that took."""
    with tempfile.TemporaryDirectory(prefix="imgdiffd-bench-") as name:
        made, start = Many(Path(name), count), time.monotonic()
        choice = Choice(kinds=("replacement",))
        written = export_dataset(made, made.images, Path(name) / "out", layout=layout, choice=choice)
        took, peak = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{layout:13}  {written.samples['replacement']:>7,} samples  {peak:4.0f} MiB  {took:5.0f} s", flush=True)


def main() -> None:
    """Each export in a process of its own, since a peak is one of a process."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.exporting", description=__doc__)
    parser.add_argument("--formats", nargs="*", default=["llava", "parquet", "webdataset"], choices=[*FORMATS])
    parser.add_argument("--samples", nargs="*", type=int, default=[2_000, 20_000])
    parser.add_argument("--here", action="store_true", help="in this process")
    chosen = parser.parse_args()
    for layout in chosen.formats:
        for count in chosen.samples:
            if chosen.here:
                export(layout, count)
            else:
                again = ["--here", "--formats", layout, "--samples", str(count)]
                subprocess.run([sys.executable, "-m", "tests.benchmarks.exporting", *again], check=True)


if __name__ == "__main__":
    main()
