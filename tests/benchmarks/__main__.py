"""`make bench`: every comparison once, as a table and as JSON. Exits 1 where a target is missed."""

import json
import sys
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks import cropping, painting

FILE = Path("build/bench.json")


def main() -> None:
    """Measure, print, write FILE."""
    table = Table("ours / theirs", "time", "FLOPs", "target")
    found = []
    for ratio in chain(painting.ratios(), cropping.ratios()):
        found.append({**asdict(ratio), "met": ratio.met})
        target = "" if ratio.target is None else f"≤ {ratio.target:.2f} {'met' if ratio.met else 'MISSED'}"
        table.add_row(ratio.what, f"{ratio.seconds:.2f}", "" if ratio.flops is None else f"{ratio.flops:.2f}", target)
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps(found, indent=2), "utf-8")
    Console().print(table)
    print(f"the same in {FILE}")
    if any(each["met"] is False for each in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
