"""A matrix times one row, where reading the matrix is all the work, fused with its neighbours in the decoder.

A library's product of one row is made of launches that each wait for the one before: for a small model that is half of
the time. Here RMSNorm, SiLU(gate) * up and the addition to the residual stream are part of the product, and the matrix
is on its way before the row is there.
"""

import torch
import triton
from torch import Tensor

from engine.kernels.activation import silu_mul_twin
from engine.kernels.early import MAX_NORMED, early
from engine.kernels.one_row_triton import one_row
from engine.kernels.rms_norm import rms_norm_twin
from engine.kernels.tuning import OneRowConfig, one_row_config


def norm_linear(
    x: Tensor, norm: Tensor, eps: float, weight: Tensor, bias: Tensor | None, *, config: OneRowConfig | None = None
) -> Tensor:
    """rms_norm(x) W^T + bias: x [1, in], W [out, in] -> [1, out]."""
    out = torch.empty(1, len(weight), dtype=x.dtype, device=x.device)
    _launch(x, weight, out, config, bias=bias, norm=norm, eps=eps)
    return out


def norm_gated(x: Tensor, norm: Tensor, eps: float, weight: Tensor, *, config: OneRowConfig | None = None) -> Tensor:
    """SiLU(gate) * up of rms_norm(x) W^T: x [1, in], W [2 out, in] with the gates in the first half -> [1, out]."""
    out = torch.empty(1, len(weight) // 2, dtype=x.dtype, device=x.device)
    _launch(x, weight, out, config, norm=norm, eps=eps, gated=True)
    return out


def linear_add(
    x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor, *, config: OneRowConfig | None = None
) -> None:
    """residual += x W^T + bias, in place: x [1, in], W [out, in], residual [1, out]."""
    _launch(x, weight, residual, config, bias=bias, add=True)


def norm_linear_twin(x: Tensor, norm: Tensor, eps: float, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.nn.functional.linear(rms_norm_twin(x, norm, eps), weight, bias)


def norm_gated_twin(x: Tensor, norm: Tensor, eps: float, weight: Tensor) -> Tensor:
    return silu_mul_twin(torch.nn.functional.linear(rms_norm_twin(x, norm, eps), weight))


def linear_add_twin(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor) -> None:
    residual.add_(torch.nn.functional.linear(x, weight, bias))


def _launch(
    x: Tensor,
    weight: Tensor,
    out: Tensor,
    config: OneRowConfig | None,
    *,
    bias: Tensor | None = None,
    norm: Tensor | None = None,
    eps: float = 0.0,
    gated: bool = False,
    add: bool = False,
) -> None:
    size = x.shape[1]
    assert x.is_contiguous() and weight.is_contiguous() and out.is_contiguous()
    assert weight.shape == (out.shape[1] * (1 + gated), size) and len(x) == len(out) == 1
    assert norm is None or (norm.shape == (size,) and size <= MAX_NORMED)
    assert bias is None or bias.shape == (out.shape[1],)
    chosen = config or one_row_config(size_in=size)
    piece = triton.next_power_of_2(size)
    one_row[(triton.cdiv(out.shape[1], chosen.rows),)](
        x,
        weight,
        weight if bias is None else bias,
        x if norm is None else norm,
        out,
        eps,
        SIZE_IN=size,
        SIZE_OUT=out.shape[1],
        ROWS=chosen.rows,
        PIECE=piece if norm is not None else min(piece, chosen.piece),
        BIAS=bias is not None,
        NORM=norm is not None,
        GATED=gated,
        ADD=add,
        num_warps=chosen.warps,
        **early(x.device, num_rows=1),
    )
