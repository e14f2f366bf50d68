"""The tensors of the KV cache: one a layer, [blocks, block size, 2, kv heads, head_dim], keys at 0, values at 1."""

import numpy as np
import torch
from torch import Tensor

from engine.config import EnginePlan
from engine.models.shape import ModelShape


def allocate_cache(shape: ModelShape, plan: EnginePlan, dtype: torch.dtype) -> list[Tensor]:
    """Zeros, because blocks are read behind a mask before they are written, and 0 * NaN is NaN."""
    dims = (plan.num_blocks, plan.block_size, 2, shape.num_kv_heads, shape.head_dim)
    return [_zeros(dims, dtype, torch.device(plan.device)) for _ in range(shape.num_layers)]


def _zeros(dims: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    if device.type != "cpu":
        return torch.zeros(dims, dtype=dtype, device=device)
    # numpy leaves the zeroing to the first touch of each page; torch would write gigabytes before the server is ready.
    num_bytes = int(np.prod(dims)) * dtype.itemsize
    return torch.from_numpy(np.zeros(num_bytes, np.uint8)).view(dtype).view(dims)
