"""A weight matrix as the forward pass uses it. Matrix products are the library's (cuBLAS, MKL, oneDNN), never ours."""

from torch import Tensor
from torch.nn import functional


class Linear:
    """y = x W^T + b for x [rows, in] and W [out, in]."""

    __slots__ = ("_bias", "_weight")

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._weight = weight
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self._weight, self._bias)
