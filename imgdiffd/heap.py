"""Gives memory that is not in use any more back to the system."""

import ctypes

_libc = ctypes.CDLL(None)


def give_back() -> None:
    """Return the holes in the heap to the system.

    Blocks of changing sizes leave them between blocks that stay, and the C library itself gives back only what lies
    behind the last block in use. On a CPU that is 60 MB of a worker after ten minutes.
    """
    if hasattr(_libc, "malloc_trim"):  # glibc's; others give back by themselves
        _libc.malloc_trim(0)
