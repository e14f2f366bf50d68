"""Logits as integers of the same order, and the search for a threshold by halving, as device functions.

A filter keeps what reaches a threshold; the threshold is an existing value, so it can be found exactly among the
integers, without a sort.
"""

# A kernel's arguments have no Python types: Triton compiles it for what it is called with.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl


@triton.jit
def ordered(values, SHIFT: tl.constexpr):
    """float32 -> int32 of the same order (-0.0 as 0.0). SHIFT: the low bits that the logits' own type leaves zero."""
    bits = (values + 0.0).to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)) >> SHIFT


@triton.jit
def ordered_up(value, SHIFT: tl.constexpr):
    """The least key of a logit that is no smaller than a float32."""
    return (ordered(value, 0).to(tl.int64) + ((1 << SHIFT) - 1)) >> SHIFT


@triton.jit
def value_of(key, SHIFT: tl.constexpr):
    bits = (key << SHIFT).to(tl.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def least_kept(keys, amounts, needed, low, high):
    """The largest key in [low, high] from which upwards the amounts add up to what is needed; low if none does."""
    while low < high:
        middle = low + ((high - low + 1) >> 1)
        enough = tl.sum(tl.where(keys >= middle.to(tl.int32), amounts, 0.0)) >= needed
        low = tl.where(enough, middle, low)
        high = tl.where(enough, high, middle - 1)
    return low
