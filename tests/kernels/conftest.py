"""Triton kernels run where there is a GPU, else in Triton's interpreter, chosen before triton is imported.

So an ordinary run without a GPU skips these tests but test_interpreted.py, which runs them in a process of their own.
"""

import os
from pathlib import Path

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if INTERPRETED or torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="no GPU: test_interpreted.py runs it in Triton's interpreter")
    for item in items:
        if HERE in item.path.parents and item.path.name != "test_interpreted.py":
            item.add_marker(skip)


@pytest.fixture
def device() -> torch.device:
    return torch.device("cpu" if INTERPRETED else "cuda")


@pytest.fixture
def half(device: torch.device) -> torch.dtype:
    """What models compute in; the interpreter's matrix product takes no bfloat16."""
    return torch.float16 if device.type == "cpu" else torch.bfloat16
