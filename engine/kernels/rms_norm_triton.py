"""RMSNorm on the GPU: one program a row, the row held in registers between its two uses."""

# A kernel's arguments have no Python types: Triton compiles it for what it is called with.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.tuning import rms_norm_warps


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x [..., H], its last dimension contiguous -> the same shape, contiguous."""
    rows = x.reshape(-1, x.shape[-1])
    out = torch.empty_like(rows)
    _launch(rows, None, weight, out, eps)
    return out.view(x.shape)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x and residual [N, H]; residual += x in place."""
    assert residual.is_contiguous()
    out = torch.empty_like(residual)
    _launch(x, residual, weight, out, eps)
    return out


def _launch(x: Tensor, residual: Tensor | None, weight: Tensor, out: Tensor, eps: float) -> None:
    num_rows, size = x.shape
    assert x.stride(1) == 1
    assert weight.is_contiguous()
    if not num_rows:
        return
    _rms_norm_kernel[(num_rows,)](
        x,
        x if residual is None else residual,
        weight,
        out,
        x.stride(0),
        eps,
        SIZE=size,
        BLOCK=triton.next_power_of_2(size),
        ADD=residual is not None,
        num_warps=rms_norm_warps(row_size=size),
    )


@triton.jit
def _rms_norm_kernel(
    x, residual, weight, out, x_stride, eps, SIZE: tl.constexpr, BLOCK: tl.constexpr, ADD: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < SIZE
    values = tl.load(x + row * x_stride + columns, mask=inside, other=0.0)
    scale = tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        places = residual + row * SIZE + columns
        held = tl.load(places, mask=inside, other=0.0)
        # The norm is that of the sum as it is stored.
        values = (values.to(tl.float32) + held.to(tl.float32)).to(residual.dtype.element_ty)
        tl.store(places, values, mask=inside)
    wide = values.to(tl.float32)
    factor = tl.rsqrt(tl.sum(wide * wide, 0) / SIZE + eps)
    tl.store(out + row * SIZE + columns, (wide * factor * scale).to(out.dtype.element_ty), mask=inside)
