"""Datasets in shards of bounded size, gathered beside the older ones until all are whole."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from imgdiffd import durable
from imgdiffd.export.folder import STAGED
from imgdiffd.export.formats.format import Images, Target, pictures_of
from imgdiffd.export.pictures import Picture
from imgdiffd.export.sample import Sample, Split

SHARD_BYTES = 256 << 20
SHARD_SAMPLES = 10_000
_INDEX = "index.jsonl"  # a line for each shard that is whole: its name, split and the identities of its samples


class Shard(Protocol):
    """A file that rows are appended to."""

    @property
    def size_bytes(self) -> int:
        """How large it has become."""
        ...

    def add(self, row: Mapping[str, Any], jpegs: Sequence[bytes]) -> None:
        """Append a row, which holds these images."""
        ...

    def close(self) -> None:
        """Write what is left; the file is then whole."""
        ...


Row = Callable[[Sample, Sequence[Picture], Sequence[bytes], Images], Mapping[str, Any]]


class _Growing:
    """A shard that is being written, under a temporary name."""

    def __init__(self, path: Path, make: Callable[[BinaryIO], Shard]) -> None:
        self.path = path
        self.identities: list[str] = []
        self._temporary = path.with_name(f"{durable.TEMPORARY_PREFIX}{path.name}")
        self._file = self._temporary.open("wb")
        self.shard = make(self._file)

    def finish(self) -> None:
        self.shard.close()
        self._file.close()
        durable.move(self._temporary, self.path)

    def give_up(self) -> None:
        self._file.close()
        self._temporary.unlink(missing_ok=True)


class ShardWriter:
    """Shards called `train-00000` and so on, in `folder`; a new one begins when one has SHARD_BYTES or SHARD_SAMPLES.

    They gather in a hidden folder, which then takes the place of the older one. An export that goes on keeps the whole
    shards that an interrupted one left there, if they hold the samples that it would have written.
    """

    def __init__(self, target: Target, folder: str, end: str, make: Callable[[BinaryIO], Shard], row: Row) -> None:
        self.names = (f"{folder}/",)
        self._target = target
        self._end = end
        self._make = make
        self._row = row
        self._folder = folder
        self._staged = target.folder.path / STAGED
        self._whole: Counter[Split] = Counter()  # shards
        self._growing: dict[Split, _Growing] = {}

    def pictures(self, sample: Sample) -> Sequence[Picture]:
        """One joined image or two."""
        return pictures_of(sample, self._target.images)

    def resume(self, identities: Iterable[tuple[Split, str]]) -> Mapping[Split, Sequence[str]]:
        """Keep the first shards that hold just these samples, drop the others."""
        found = self._read_index()
        left = {split: iter([each for shard in shards for each in shard["samples"]]) for split, shards in found.items()}
        equal: Counter[Split] = Counter()
        for split, identity in identities if left else ():
            if split in left:
                if next(left[split], None) == identity:
                    equal[split] += 1
                else:
                    del left[split]  # from here on, this split is another one
            if not left:
                break
        done: dict[Split, list[str]] = {}
        kept = []
        for split, shards in found.items():
            done[split] = []
            for shard in shards:
                if len(done[split]) + len(shard["samples"]) > equal[split]:
                    break
                done[split] += shard["samples"]
                self._whole[split] += 1
                kept.append(shard)
        self._begin(kept)
        return done

    def _read_index(self) -> dict[Split, list[dict[str, Any]]]:
        found: dict[Split, list[dict[str, Any]]] = {}
        try:
            lines = (self._staged / _INDEX).read_text("utf-8").splitlines()
        except FileNotFoundError:
            return {}
        for line in lines:
            try:
                shard = json.loads(line)
            except ValueError:  # the line that a power cut left half-written; its shard is made again
                break
            path = self._staged / shard["name"]
            if path.is_file() and path.stat().st_size == shard["bytes"]:
                found.setdefault(shard["split"], []).append(shard)
        return found

    def _begin(self, kept: Sequence[Mapping[str, Any]]) -> None:
        self._staged.mkdir(exist_ok=True)
        names = {shard["name"] for shard in kept}
        for path in self._staged.iterdir():
            if path.name not in names:
                path.unlink()
        durable.write({self._staged / _INDEX: "".join(f"{json.dumps(shard)}\n" for shard in kept)})

    def add(self, sample: Sample, pictures: Sequence[Picture], jpegs: Sequence[bytes], identity: str) -> None:
        """Append the sample to its split's shard."""
        split = sample.split
        if split not in self._growing:
            name = f"{split}-{self._whole[split]:05d}{self._end}"
            self._growing[split] = _Growing(self._staged / name, self._make)
        growing = self._growing[split]
        growing.shard.add(self._row(sample, pictures, jpegs, self._target.images), jpegs)
        growing.identities.append(identity)
        if growing.shard.size_bytes >= SHARD_BYTES or len(growing.identities) >= SHARD_SAMPLES:
            self._finish(split)

    def _finish(self, split: Split) -> None:
        growing = self._growing[split]
        growing.finish()
        del self._growing[split]
        self._whole[split] += 1
        size = growing.path.stat().st_size
        line = {"name": growing.path.name, "split": split, "bytes": size, "samples": growing.identities}
        with (self._staged / _INDEX).open("ab") as index:
            index.write(f"{json.dumps(line)}\n".encode())
            index.flush()
            os.fsync(index.fileno())

    def finish(self) -> Mapping[str, durable.Content]:
        """Put the shards in the place of the older ones."""
        for split in list(self._growing):
            self._finish(split)
        (self._staged / _INDEX).unlink()
        if any(self._whole.values()):
            self._target.folder.swap(self._staged, self._folder)
        else:
            self._target.folder.disown(f"{self._folder}/")
        return {}

    def close(self) -> None:
        """Give up the shards that are not whole."""
        for growing in self._growing.values():
            growing.give_up()
