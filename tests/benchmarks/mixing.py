"""`make bench-mix`: samples shuffled into an instruction set of the size of LLaVA's, with its time and peak memory."""

import argparse
import json
import random
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imgdiffd.export.mixing import mix

OTHERS, OWN = 665_298, 18_461  # records of llava_v1_5_mix665k.json; samples of both products of the paper
_WORDS = ("the", "image", "shows", "a", "street", "über", "日本", "cat", "\n", '"quoted"', "<br>", "\\n")


def conversations(count: int) -> Iterator[dict[str, Any]]:
    """Made-up records: of 1 to 5 rounds, about 1.5 kB each."""
    drawn = random.Random(0)
    for number in range(count):
        turns = []
        for each in range(drawn.choice((1, 1, 2, 5))):
            mark = "" if each else "<image>\n"
            turns.append({"from": "human", "value": mark + " ".join(drawn.choices(_WORDS, k=20))})
            turns.append({"from": "gpt", "value": " ".join(drawn.choices(_WORDS, k=80))})
        yield {"id": f"{number % 300_000:012d}", "image": f"coco/{number:012d}.jpg", "conversations": turns}


def samples(count: int) -> Iterator[dict[str, Any]]:
    """Made-up records of an export."""
    turns = [{"from": "human", "value": "<image>\nAnalyse the left image"}, {"from": "gpt", "value": "Left: a cone."}]
    for number in range(count):
        yield {"id": f"{number:032x}", "image": f"imgdiff/{number:032x}.jpg", "conversations": turns}


def written(path: Path, records: Iterator[dict[str, Any]]) -> Path:
    """A list of these records."""
    with path.open("w", encoding="utf-8") as file:
        between = "["
        for number, record in enumerate(records):
            file.write(f"{between}{json.dumps(record, indent=2 if number % 3 == 0 else None, ensure_ascii=False)}")
            between = ",\n"
        file.write("]")
    return path


def main() -> None:
    """Makes both lists, mixes them and prints what that took."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.mixing", description=__doc__)
    parser.add_argument("--others", type=int, default=OTHERS, help=f"records of the instruction set ({OTHERS:,})")
    parser.add_argument("--own", type=int, default=OWN, help=f"samples ({OWN:,})")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imgdiffd-bench-") as name:
        folder = Path(name)
        own = written(folder / "own.json", samples(chosen.own))
        others = written(folder / "others.json", conversations(chosen.others))
        before, start, worked = _peak_mb(), time.monotonic(), time.process_time()
        done = mix(own, others, folder / "mix.json", seed=1)
        took, worked = time.monotonic() - start, time.process_time() - worked
    print(f"{done.records:,} records, {done.size_bytes / 1e9:.2f} GB: {took:.1f} s, {worked:.1f} of them on a core")
    print(f"peak memory {_peak_mb():.0f} MB, of which {_peak_mb() - before:.0f} MB for mixing")


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
