"""Tells from an error of a stage what is to become of the batch, and of the process."""

import errno
from enum import Enum

_MEMORY_MARKERS = ("out of memory", "DefaultCPUAllocator", "can't allocate memory", "STATUS_ALLOC_FAILED")
# After one of these a CUDA context answers every call with the same error (CUDA runtime API, cudaError_t: "the process
# must be terminated and relaunched").
_FAULT_MARKERS = (
    "device-side assert",
    "illegal memory access",
    "illegal instruction",
    "illegal address",
    "misaligned address",
    "invalid program counter",
    "hardware stack error",
    "unspecified launch failure",
    "launch timed out",
    "uncorrectable ECC error",
    "uncorrectable NVLink error",
    "CUDA error: unknown error",
)


class Fault(Enum):
    """What an error of a stage says about its batch and the process."""

    MEMORY = "memory"  # a smaller batch may fit
    POISONED = "poisoned"  # only a new process helps
    DISK = "disk"  # there may be room for its images later
    STAGE = "stage"  # this batch fails, others need not


def sort_of_fault(error: BaseException) -> Fault:
    """Which fault `error` is: the first that is recognised along its chain of causes, else an ordinary one."""
    link: BaseException | None = error
    while link is not None:
        text = str(link)
        if isinstance(link, RuntimeError) and any(marker in text for marker in _FAULT_MARKERS):
            return Fault.POISONED
        # torch.OutOfMemoryError is recognised by its name, so that this module does not need torch.
        if isinstance(link, MemoryError) or type(link).__name__ == "OutOfMemoryError":
            return Fault.MEMORY
        if isinstance(link, RuntimeError) and any(marker in text for marker in _MEMORY_MARKERS):
            return Fault.MEMORY
        if isinstance(link, OSError) and link.errno in {errno.ENOSPC, errno.EDQUOT}:
            return Fault.DISK
        link = link.__cause__ or link.__context__
    return Fault.STAGE
