"""Steps of one row, whose launches are short: which of them may start before their predecessor ends.

From compute capability 9.0 on a kernel may (programmatic dependent launch); it then reads nothing that others write
before its `gdc_wait`.
"""

from functools import lru_cache
from typing import Any

import torch

MAX_NORMED = 8192  # numbers of a row that a program can hold


def early(device: torch.device, *, num_rows: int) -> dict[str, Any]:
    """Launch options of a kernel that has a constexpr EARLY."""
    if num_rows == 1 and _is_able(device):
        return {"EARLY": True, "launch_pdl": True}
    return {"EARLY": False}


@lru_cache
def _is_able(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 9
