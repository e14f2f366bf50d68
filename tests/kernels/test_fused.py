"""The element-wise kernels against their twins in float32, with outputs full of NaN before each launch."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from engine.kernels import activation_triton, rms_norm_triton, rotary_triton
from engine.kernels.activation import silu_mul_twin
from engine.kernels.rms_norm import add_rms_norm_twin, rms_norm_twin
from engine.kernels.rotary import HeadLayout, HeadNorms, rotate_and_store_twin

# numpy, which the interpreter computes with, warns of an overflow that the kernel means.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

Draw = Callable[..., Tensor]


@pytest.fixture(params=[torch.float32, torch.bfloat16, torch.float16], ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    chosen: torch.dtype = request.param
    return chosen


@pytest.fixture
def draw(device: torch.device, dtype: torch.dtype) -> Draw:
    torch.manual_seed(3)
    return lambda *shape: torch.randn(*shape).to(device, dtype)


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel allocates and leaves unwritten is NaN."""
    empty, empty_like = torch.empty, torch.empty_like
    monkeypatch.setattr(torch, "empty", lambda *shape, **flags: empty(*shape, **flags).fill_(torch.nan))
    monkeypatch.setattr(torch, "empty_like", lambda like: empty_like(like).fill_(torch.nan))


def assert_near(out: Tensor, reference: Tensor) -> None:
    assert out.isfinite().all()
    bound = 1e-5 if out.dtype == torch.float32 else 1e-2
    assert (out.double() - reference.double()).norm() <= bound * reference.double().norm()


@pytest.mark.parametrize("size", [64, 576, 960])
def test_rms_norm_of_rows_of_any_size(draw: Draw, size: int) -> None:
    x, weight = draw(5, size), draw(size)
    assert_near(rms_norm_triton.rms_norm(x, weight, 1e-5), rms_norm_twin(x.float(), weight.float(), 1e-5))


def test_rms_norm_reads_rows_that_lie_apart(draw: Draw) -> None:
    wide, weight = draw(5, 3, 40), draw(40)
    x = wide[:, 1]
    assert_near(rms_norm_triton.rms_norm(x, weight, 1e-6), rms_norm_twin(x.float(), weight.float(), 1e-6))


def test_rms_norm_of_zeros_is_zero(draw: Draw) -> None:
    assert not rms_norm_triton.rms_norm(draw(2, 48) * 0, draw(48), 1e-6).any()


def test_addition_changes_the_residual_and_returns_its_norm(draw: Draw) -> None:
    x, residual, weight = draw(6, 576), draw(6, 576), draw(576)
    wide = residual.float().clone()
    wanted = add_rms_norm_twin(x.float(), wide, weight.float(), 1e-5)
    assert_near(rms_norm_triton.add_rms_norm(x, residual, weight, 1e-5), wanted)
    assert_near(residual, wide)


@pytest.mark.parametrize("size", [48, 1536])
def test_silu_mul(draw: Draw, size: int) -> None:
    gate_up = draw(3, 2 * size)
    assert_near(activation_triton.silu_mul(gate_up), silu_mul_twin(gate_up.float()))


def test_silu_of_large_gates_does_not_overflow(draw: Draw) -> None:
    gate_up = draw(1, 64)
    gate_up[0, :2] = torch.tensor([200.0, -200.0])
    assert_near(activation_triton.silu_mul(gate_up), silu_mul_twin(gate_up.float()))


def rope(draw: Draw, tokens: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Tables as the decoder makes them."""
    angles = draw(tokens, 1, head_dim // 2).float()
    cos, sin = angles.cos(), angles.sin()
    like = draw(1)
    return torch.cat([cos, cos], -1).to(like), torch.cat([-sin, sin], -1).to(like)


@pytest.mark.parametrize("with_norms", [False, True])
@pytest.mark.parametrize(("num_heads", "num_kv_heads", "head_dim"), [(4, 2, 64), (3, 1, 80), (9, 3, 24), (2, 2, 128)])
def test_rotary(draw: Draw, num_heads: int, num_kv_heads: int, head_dim: int, with_norms: bool) -> None:
    heads = HeadLayout(num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=head_dim)
    qkv, (cos, sin) = draw(7, (num_heads + 2 * num_kv_heads) * head_dim), rope(draw, 7, head_dim)
    norms = (draw(head_dim), draw(head_dim), 1e-6) if with_norms else None
    wide_norms: HeadNorms | None = (norms[0].float(), norms[1].float(), 1e-6) if norms else None
    cache = draw(3, 16, 2, num_kv_heads, head_dim)
    slots = torch.randperm(48)[:7].to(cache.device)
    wide = cache.float().clone()
    wanted = rotate_and_store_twin(qkv.float().clone(), cos.float(), sin.float(), wide_norms, wide, slots, heads)
    q = rotary_triton.rotate_and_store(qkv, cos, sin, norms, cache, slots, heads)
    assert q.is_contiguous()
    assert_near(q, wanted)
    assert_near(cache, wide)


def test_rotary_stores_no_row_that_has_no_slot(draw: Draw) -> None:
    heads = HeadLayout(num_heads=2, num_kv_heads=1, head_dim=32)
    cache = draw(2, 16, 2, 1, 32)
    before = cache.clone()
    slots = torch.tensor([-1, 5, -1], device=cache.device)
    rotary_triton.rotate_and_store(draw(3, 4 * 32), *rope(draw, 3, 32), None, cache, slots, heads)
    changed = (cache != before).flatten(1, -1).view(32, -1).any(-1).nonzero().flatten()
    assert changed.tolist() == [5]


def test_rotary_lets_nothing_into_the_cache_that_is_not_finite(draw: Draw) -> None:
    heads = HeadLayout(num_heads=1, num_kv_heads=1, head_dim=32)
    qkv, cache = draw(2, 3 * 32), draw(1, 16, 2, 1, 32)
    qkv[0, 40], qkv[0, 70], qkv[0, 80] = torch.nan, torch.inf, -torch.inf
    slots = torch.tensor([3, 4], device=cache.device)
    rotary_triton.rotate_and_store(qkv, *rope(draw, 2, 32), None, cache, slots, heads)
    assert cache.isfinite().all()
    values = cache[0, 3, 1, 0]
    largest = torch.finfo(cache.dtype).max
    assert [values[6].item(), values[16].item()] == [largest, -largest]
    rest = [column for column in range(32) if column not in (6, 16)]
    assert torch.equal(values[rest], qkv[0, 64:][rest])
