"""The formats in which a dataset can be written, by the name that `--format` takes."""

from collections.abc import Mapping
from types import MappingProxyType

from imgdiffd.export.formats import (
    coco,
    data_juicer,
    internvl,
    llama_factory,
    llava,
    mgm,
    parquet,
    release,
    swift,
    trl,
    webdataset,
)
from imgdiffd.export.formats.format import Format

FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "release": release.FORMAT,
        "llava": llava.FORMAT,
        "mgm": mgm.FORMAT,
        "internvl": internvl.FORMAT,
        "trl": trl.FORMAT,
        "llama-factory": llama_factory.FORMAT,
        "swift": swift.FORMAT,
        "parquet": parquet.FORMAT,
        "webdataset": webdataset.FORMAT,
        "data-juicer": data_juicer.FORMAT,
        "coco": coco.FORMAT,
    }
)
