"""A weight matrix as the forward pass uses it. Matrix products are the library's (cuBLAS, MKL, oneDNN), never ours."""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

# MKL reads a [out, in] matrix at twice the speed when it stands on the left and there are few rows
# (SmolLM2-135M, 4 rows, one AVX2 core: 41 ms instead of 68).
MAX_FLIPPED_ROWS = 5


class Linear(Protocol):
    """y = x W^T + b for x [rows, in] and W [out, in]."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def multiply_into(self, x: Tensor, out: Tensor) -> None: ...


class PlainLinear:
    """The matrix in the type it is multiplied in."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight = weight
        self.bias = bias
        self._flips = weight.device.type == "cpu" and weight.dtype == torch.float32 and bias is None

    def __call__(self, x: Tensor) -> Tensor:
        if self._flips and 1 < len(x) <= MAX_FLIPPED_ROWS:
            return torch.mm(self.weight, x.t()).t().contiguous()
        return functional.linear(x, self.weight, self.bias)

    def multiply_into(self, x: Tensor, out: Tensor) -> None:
        """Into memory that is there already; without a bias."""
        assert self.bias is None
        torch.mm(x, self.weight.t(), out=out)


def plain(linear: Linear) -> PlainLinear:
    """What every matrix on a GPU is."""
    assert isinstance(linear, PlainLinear)
    return linear


class PackedHalfLinear:
    """float32 rows times 16-bit weights, for CPUs that cannot multiply 16-bit numbers.

    FBGEMM widens the weights as it reads them, from blocks packed for the purpose: half of float32's memory traffic
    (SmolLM2-135M, one AVX2 core: 19 ms instead of 34 for 1 row, 40 instead of 97 for 8, 122 instead of 172 for 32).
    bfloat16 weights go through float16 unchanged unless they are smaller than 6e-5, where at most 3e-8 is lost.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._packed: Any = torch.ops.quantized.linear_prepack_fp16(weight, bias)

    def __call__(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, self._packed)
        return product

    def multiply_into(self, x: Tensor, out: Tensor) -> None:
        """Into memory that is there already."""
        out.copy_(self(x))


def can_pack_half() -> bool:
    return "fbgemm" in torch.backends.quantized.supported_engines


def make_linear(weight: Tensor, bias: Tensor | None, *, packed: bool) -> Linear:
    """`packed`: where it can be done without loss, which for a weight beyond float16's range it cannot."""
    if packed and float(weight.abs().max()) <= torch.finfo(torch.float16).max:
        return PackedHalfLinear(weight, bias)
    return PlainLinear(weight, bias)
