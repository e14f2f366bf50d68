"""RMSNorm of rows, alone or fused with the addition to the residual stream before it."""

import torch
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """[..., H] scaled to a mean square of 1, times weight [H]; computed in float32, returned in x's type."""
    assert x.shape[-1:] == weight.shape
    if x.is_cuda:
        from engine.kernels import rms_norm_triton  # here: only a GPU needs it, and importing it takes time

        return rms_norm_triton.rms_norm(x, weight, eps)
    return rms_norm_twin(x, weight, eps)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    """residual += x, in place; returns the norm of the sum."""
    assert x.shape == residual.shape
    if x.is_cuda:
        from engine.kernels import rms_norm_triton  # here: only a GPU needs it, and importing it takes time

        return rms_norm_triton.add_rms_norm(x, residual, weight, eps)
    return add_rms_norm_twin(x, residual, weight, eps)


def rms_norm_twin(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    normed: Tensor = (wide * scale).to(x.dtype)
    return normed.mul_(weight)


def add_rms_norm_twin(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    return rms_norm_twin(residual.add_(x), weight, eps)
