"""Rows of logits as runs of 64, as device functions: loaded, and reduced to a maximum and a sum of weights each."""

# A kernel's arguments have no Python types: Triton compiles it for what it is called with.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

from engine.kernels.sampling import RUN

_RUN = tl.constexpr(RUN)


@triton.jit
def load_runs(line, runs, present, SIZE: tl.constexpr):
    """[runs, 64] logits in float32, -inf where there are none."""
    ids = runs[:, None] * _RUN + tl.arange(0, _RUN)[None, :]
    return tl.load(line + ids, mask=present[:, None] & (ids < SIZE), other=-float("inf")).to(tl.float32)


@triton.jit
def top_and_sum(values, factor):
    """Each run's maximum, and the sum of its weights relative to it: NaN where a value is NaN or +inf."""
    top = tl.max(values, 1)
    zero = tl.where(top == -float("inf"), 0.0, top)
    return top, tl.sum(tl.exp2((values - zero[:, None]) * factor), 1)
