"""How much may come out of a caption file of a certain size: a few kB can be packed to fill a reader's day."""

from imgdiffd.errors import InputError

# What people write grows far less: captions by zstd 5 to 40 times, with at most one in a byte.
MAX_GROWTH = 100
MAX_RECORDS_PER_BYTE = 4
FREE_BYTES = 32 << 20  # may come out of any file, however small
FREE_RECORDS = 1_000_000


def refuse_growth(file_bytes: int, *, unpacked_bytes: int = 0, records: int = 0) -> None:
    """Raises InputError where more came out of a file of `file_bytes` than anybody packs into one."""
    if unpacked_bytes > FREE_BYTES + MAX_GROWTH * file_bytes:
        reason = f"it unpacks to more than {MAX_GROWTH} times its size"
        raise InputError(reason, code="too_long", hint="unpack it, and look at what is in it")
    if records > (most := FREE_RECORDS + MAX_RECORDS_PER_BYTE * file_bytes):
        reason = f"it has more than {most:,} records, too many for a file of {file_bytes:,} bytes"
        raise InputError(reason, code="too_many", hint="most of them must be alike: leave each caption in it once")
