"""What an error of a stage says about its batch and the process."""

import errno

import pytest

from imgdiffd.worker.faults import Fault, sort_of_fault


class OutOfMemoryError(RuntimeError):
    """Named as torch's is."""


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (MemoryError(), Fault.MEMORY),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), Fault.MEMORY),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), Fault.MEMORY),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), Fault.MEMORY),
        (RuntimeError("CUDA error: out of memory"), Fault.MEMORY),
        (RuntimeError("CUDA error: device-side assert triggered"), Fault.POISONED),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), Fault.POISONED),
        (RuntimeError("CUDA error: unspecified launch failure"), Fault.POISONED),
        (RuntimeError("CUDA error: invalid argument"), Fault.STAGE),
        (ValueError("a caption about an illegal memory access"), Fault.STAGE),
        (RuntimeError("shapes do not match"), Fault.STAGE),
        (OSError(errno.ENOSPC, "No space left on device"), Fault.DISK),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), Fault.DISK),
        (OSError(errno.EIO, "Input/output error"), Fault.STAGE),
    ],
)
def test_fault_is_known_by_type_and_text(error: Exception, fault: Fault) -> None:
    assert sort_of_fault(error) is fault


def test_fault_is_found_behind_the_error_that_wraps_it() -> None:
    wrapped = ValueError("could not paint")
    wrapped.__cause__ = RuntimeError("CUDA error: device-side assert triggered")
    assert sort_of_fault(wrapped) is Fault.POISONED
