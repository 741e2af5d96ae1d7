"""Everything here needs a CUDA device, and is skipped without one."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def whole_precision() -> Iterator[None]:
    """Convolutions in fp32 as it is: cuDNN would take TF32, which keeps three digits, and tests compare with four."""
    with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "gpu":
            item.add_marker(pytest.mark.gpu)
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))
