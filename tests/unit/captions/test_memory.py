"""However much is packed into a file, the process that reads it grows by less than 200 MB and gives that back."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imgdiffd import heap
from imgdiffd.captions import read_open
from imgdiffd.errors import InputError

MB = 1 << 20
PEAK_MB, KEPT_MB = 200, 20


def resident_mb(key: str) -> float:
    """VmRSS, or VmHWM for the most so far."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) / 1024


def measure(path: str) -> None:
    """Read a file in this process, which is fresh; print how much the process grew and keeps, and what came of it."""
    before = resident_mb("VmRSS")
    said = "read"
    with open(path, "rb") as file:
        try:
            for _ in read_open(file, path):
                pass
        except InputError as error:
            said = error.code
    heap.give_back()
    print(resident_mb("VmHWM") - before, resident_mb("VmRSS") - before, said)


# How a record goes on until it has 250 MB.
REST = {
    "strings of 2 MB": b'"' + b"x" * 2 * MB + b'", ',
    "one string with escaped quotes": b"x" * (65536 - 2) + b'\\"',
}


def repeated(value: bytes, times: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays([0] * times, pa.array([value]))


def columns(case: str) -> dict[str, object]:
    match case:
        case "image column":
            return {"caption": ["a dog"] * 20, "image": repeated(b"\0" * 30 * MB, 20)}
        case "image structs":
            pixels = pa.array([b"\0" * 10 * MB] * 20)
            return {"caption": ["a dog"] * 20, "image": pa.StructArray.from_arrays([pixels], ["bytes"])}
    return {"caption": repeated(b"a" * 20 * MB, 2000)}


def growth(path: Path) -> tuple[float, float, str]:
    code = f"from tests.unit.captions.test_memory import measure; measure({str(path)!r})"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    peak, kept, said = done.stdout.split()
    return float(peak), float(kept), said


@pytest.mark.parametrize("case", REST)
def test_json_of_huge_values_is_never_held_whole(case: str, tmp_path: Path) -> None:
    path, rest = tmp_path / "a.json", REST[case]
    with path.open("wb") as file:
        file.write(b'["a dog", {"caption": "a cat", "rest": [' + b'"' * (not rest.startswith(b'"')))
        file.writelines([rest] * (250 * MB // len(rest)))
        file.write(b'""]}]')
    peak_mb, kept_mb, said = growth(path)
    assert peak_mb < PEAK_MB
    assert kept_mb < KEPT_MB
    assert said == ("read" if rest.startswith(b'"') else "too_long")


@pytest.mark.parametrize("case", ["image column", "image structs", "bomb"])
def test_parquet_unpacks_nothing_into_the_daemon(case: str, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns(case)), path)
    assert path.stat().st_size < 2 * MB
    peak_mb, kept_mb, said = growth(path)
    assert peak_mb < PEAK_MB
    assert kept_mb < KEPT_MB
    assert said == ("too_long" if case == "bomb" else "read")
