"""Describes an export in Croissant 1.0 (MLCommons), so that its loaders know its files, columns and images."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow.parquet

from imgdiffd.export.instructions import find_records
from imgdiffd.export.records import IMAGE_ENDS

NAME = "croissant.json"
_TERMS = (
    "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format",
    "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex",
    "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
)  # fmt: skip
_CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS},
}
_ENCODINGS = {
    ".json": "application/json",
    ".jsonl": "application/jsonlines",
    ".parquet": "application/x-parquet",
    ".tar": "application/x-tar",
}
_TURNS = {"question": 0, "answer": 1}
_PARTS = {"bytes": "sc:ImageObject", "content": "sc:Text", "value": "sc:Text"}  # of an image or a turn: what it holds
_TYPES: Mapping[type, str] = {bool: "sc:Boolean", int: "sc:Integer", float: "sc:Float", str: "sc:Text"}
Json = dict[str, Any]


def describe(folder: Path, names: Iterable[str], sums: Mapping[str, str], about: Mapping[str, str]) -> Json:
    """The description of the files `names` below `folder`; `sums` has the checksums of all but images and Parquet.

    Each list is a record set, called as its file without the end; shards of one split are one. So are the images, where
    they are files. `about` has schema.org's words on the whole: name, description, license, version.
    """
    files = sorted(names)
    images = sorted({str(Path(name).parent) for name in files if name.endswith(IMAGE_ENDS) and "/" in name})
    lists = [name for name in files if Path(name).suffix in (".json", ".jsonl") and name != NAME]
    distribution = [_file(folder, name, sums[name]) for name in lists]
    sets = [_record_set(name, _fields(folder / name, Path(name).stem, _of(name))) for name in lists]
    for end, described in ((".parquet", _parquet), (".tar", _archives)):
        for split, shards in groupby((name for name in files if name.endswith(end)), key=_split):
            found = list(shards)
            more, fields = described(folder, split, found, sums)
            distribution += more
            sets.append(_record_set(split, fields))
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        **about,
        "distribution": [*distribution, *(_file_set(f"{name}/", "image/jpeg", f"{name}/*.jpg") for name in images)],
        "recordSet": [*(each for each in sets if each["field"]), *map(_image_set, images)],
    }


def _split(name: str) -> str:
    """`train` of `data/train-00000.parquet`."""
    return Path(name).stem.rpartition("-")[0]


def _file(folder: Path, name: str, digest: str) -> Json:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{(folder / name).stat().st_size} B",
        "encodingFormat": _ENCODINGS[Path(name).suffix],
        "sha256": digest,
    }


def _file_set(name: str, encoding: str, includes: str, **more: Any) -> Json:
    return {"@type": "cr:FileSet", "@id": name, "name": name, "encodingFormat": encoding, "includes": includes, **more}


def _of(name: str, what: str = "fileObject") -> Json:
    return {what: {"@id": name}}


def _parquet(
    folder: Path, split: str, shards: Sequence[str], _sums: Mapping[str, str]
) -> tuple[list[Json], list[Json]]:
    pattern = f"{Path(shards[0]).parent}/{split}-*.parquet"
    batch = next(pyarrow.parquet.ParquetFile(folder / shards[0]).iter_batches(1), None)
    record = batch.to_pylist()[0] if batch is not None else {}
    fields = _column_fields(record, split, _of(pattern, "fileSet"))
    return [_file_set(pattern, _ENCODINGS[".parquet"], pattern)], list(fields)


def _archives(
    folder: Path, split: str, shards: Sequence[str], sums: Mapping[str, str]
) -> tuple[list[Json], list[Json]]:
    """Of archives that hold a JSON file beside each sample's images: that file as text, which no loader parses."""
    name = f"{split}-*.json"
    inside = _file_set(name, _ENCODINGS[".json"], "*.json", containedIn=[{"@id": each} for each in shards])
    facts = _of(name, "fileSet") | {"extract": {"fileProperty": "content"}}
    return [*(_file(folder, each, sums[each]) for each in shards), inside], [_field(split, "json", "sc:Text", facts)]


def _record_set(title: str, fields: Iterable[Json]) -> Json:
    return {"@type": "cr:RecordSet", "@id": Path(title).stem, "name": Path(title).stem, "field": list(fields)}


def _image_set(name: str) -> Json:
    title, source = f"{name}-images", _of(f"{name}/", "fileSet")
    fields = [
        _field(title, "name", "sc:Text", source | {"extract": {"fileProperty": "fullpath"}}),
        _field(title, "image", "sc:ImageObject", source | {"extract": {"fileProperty": "content"}}),
    ]
    return _record_set(title, fields)


def _field(of: str, name: str, kind: str, source: Json, **more: Any) -> Json:
    return {"@type": "cr:Field", "@id": f"{of}/{name}", "name": name, "dataType": kind, "source": source, **more}


def _fields(path: Path, title: str, source: Json) -> Iterator[Json]:
    """What a record of this list holds, by its first one."""
    if path.suffix == ".json":
        return _json_fields(path, title, source)
    with path.open(encoding="utf-8") as lines:
        return _column_fields(json.loads(next(lines, "{}")), title, source)


def _json_fields(path: Path, title: str, source: Json) -> Iterator[Json]:
    with path.open("rb") as file:
        first = next(find_records(file, path), None) if file.read(1) == b"[" and not file.seek(0) else None
    for key, value in (first.record if first else {}).items():
        if key == "conversations":
            for turn, place in _TURNS.items():
                extract = {"jsonPath": f"$[*].conversations[{place}].value"}
                yield _field(title, turn, "sc:Text", source | {"extract": extract})
        elif kind := _kind(value):
            repeated = {"repeated": True} if isinstance(value, list) else {}
            yield _field(title, key, kind, source | {"extract": {"jsonPath": f"$[*].{key}"}}, **repeated)


def _column_fields(record: Mapping[str, Any], title: str, source: Json) -> Iterator[Json]:
    for key, value in record.items():
        extract = source | {"extract": {"column": key}}
        repeated = {"repeated": True} if isinstance(value, list) else {}
        inner = value[0] if isinstance(value, list) and value else value
        if part := next((each for each in _PARTS if isinstance(inner, dict) and inner.get(each)), None):
            transform = {"transform": {"jsonPath": part}}
            yield _field(title, key, _PARTS[part], extract | transform, **repeated)
        elif kind := _kind(value):
            yield _field(title, key, kind, extract, **repeated)


def _kind(value: object) -> str | None:
    """The type of a value, or of the members of a list; None for what Croissant has no simple word for."""
    if isinstance(value, list) and value and not isinstance(value[0], list):
        return _kind(value[0])
    return _TYPES.get(type(value))
