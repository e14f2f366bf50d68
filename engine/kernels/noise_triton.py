"""The sampling noise of `sampling.py`'s twin as device functions: the same bits from the same keys and counters."""

# A kernel's arguments have no Python types: Triton compiles it for what it is called with.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: disable-error-code="no-untyped-def, untyped-decorator"

import triton
import triton.language as tl

_GOLDEN = tl.constexpr(0x9E3779B97F4A7C15)
_MIX_1 = tl.constexpr(0xBF58476D1CE4E5B9)
_MIX_2 = tl.constexpr(0x94D049BB133111EB)
_RUN_COUNTERS = tl.constexpr(2**32)


@triton.jit
def row_key(seed, position):
    """The noise key of the token at a position, from a row's seed."""
    return _scramble(_scramble(seed.to(tl.uint64)) + position.to(tl.uint64) * _GOLDEN)


@triton.jit
def run_noise(key, runs):
    """Gumbel noise, float64, for the race between runs."""
    return gumbel(key, runs.to(tl.uint64) + _RUN_COUNTERS)


@triton.jit
def gumbel(key, counters):
    bits = _scramble(key + counters.to(tl.uint64) * _GOLDEN)
    uniform = ((bits >> 11).to(tl.float64) + 0.5) * 1.1102230246251565e-16
    return -tl.log(-tl.log(uniform))


@triton.jit
def _scramble(bits):
    """SplitMix64's finisher."""
    bits = (bits ^ (bits >> 30)) * _MIX_1
    bits = (bits ^ (bits >> 27)) * _MIX_2
    return bits ^ (bits >> 31)
