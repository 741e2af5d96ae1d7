"""Datasets in the published layout, as somebody may have them on a disk."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from imgdiffd.export import release, removal
from imgdiffd.method.removal import QUESTION


def replacement(path: str, **changed: Any) -> dict[str, Any]:
    """A record of object replacement."""
    turns = [{"from": "human", "value": release.QUESTION}, {"from": "gpt", "value": "A cat became a dog."}]
    record = {"conversations": turns, "bbox": "[0.10, 0.20, 0.50, 0.80]", "captions1": "a cat", "captions2": "a dog"}
    return {**record, "path": path, **changed}


def removed(path: str, answer: str = "A", **changed: Any) -> dict[str, Any]:
    """A record of object removal."""
    turns = [{"from": "human", "value": QUESTION.replace("{caption}", "a cup")}, {"from": "gpt", "value": answer}]
    return {"bbox": [0.1, 0.2, 0.5, 0.8], "conversations": turns, "path": path, **changed}


def publish(
    folder: Path,
    replacements: Sequence[object] = (),
    removals: Sequence[object] = (),
    size: tuple[int, int] = (128, 128),
) -> Path:
    """Write the lists, and two images for each record with a path of ours, each of a colour of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, records in ((release.JSON_NAME, replacements), (removal.JSON_NAME, removals)):
        if records:
            (folder / name).write_text(json.dumps(records, indent=1) + "\n")
        for number, record in enumerate(records):
            path = record.get("path") if isinstance(record, dict) else None
            if isinstance(path, str) and path.startswith("object_"):
                for end in (0, 1):
                    file = folder / f"{path}_{end}.jpg"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    Image.new("RGB", size, (number % 256, 100 * end, 50)).save(file)
    return folder


def pack(folder: Path, name: str = release.IMAGE_FOLDER, *, flat: bool = False) -> Path:
    """Put an image folder into a ZIP archive beside it, and remove it; `flat` leaves its name out of the members'."""
    archive = folder / f"{name}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted((folder / name).iterdir()):
            packed.write(file, file.name if flat else f"{name}/{file.name}")
            file.unlink()
    (folder / name).rmdir()
    return archive
