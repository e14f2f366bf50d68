import pytest
import torch
from torch import Tensor

from engine.kernels.one_row import (
    linear_add,
    linear_add_twin,
    norm_gated,
    norm_gated_twin,
    norm_linear,
    norm_linear_twin,
)
from engine.kernels.tuning import OneRowConfig
from tests.kernels.paged_rows import error

EPS = 1e-5


def numbers(*dims: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.randn(*dims).to(device, dtype)


@pytest.fixture(params=[(64, 128), (72, 40), (96, 102)], ids=str)
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    """Numbers in the row, rows of the matrix."""
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("with_bias", [False, True])
def test_norm_and_product(size: tuple[int, int], with_bias: bool, half: torch.dtype, device: torch.device) -> None:
    size_in, size_out = size
    x, norm = numbers(1, size_in, dtype=half, device=device), numbers(size_in, dtype=half, device=device)
    weight = numbers(size_out, size_in, dtype=half, device=device)
    bias = numbers(size_out, dtype=half, device=device) if with_bias else None
    expected = norm_linear_twin(x.float(), norm.float(), EPS, weight.float(), None if bias is None else bias.float())
    assert error(norm_linear(x, norm, EPS, weight, bias), expected) < 1e-2


def test_norm_product_and_gate(size: tuple[int, int], half: torch.dtype, device: torch.device) -> None:
    size_in, size_out = size
    x, norm = numbers(1, size_in, dtype=half, device=device), numbers(size_in, dtype=half, device=device)
    weight = numbers(2 * size_out, size_in, dtype=half, device=device) / 8
    expected = norm_gated_twin(x.float(), norm.float(), EPS, weight.float())
    assert error(norm_gated(x, norm, EPS, weight), expected) < 1e-2


@pytest.mark.parametrize("piece", [16, 1024])
@pytest.mark.parametrize("with_bias", [False, True])
def test_product_and_addition(
    size: tuple[int, int], with_bias: bool, piece: int, half: torch.dtype, device: torch.device
) -> None:
    size_in, size_out = size
    x, weight = (
        numbers(1, size_in, dtype=half, device=device),
        numbers(size_out, size_in, dtype=half, device=device),
    )
    bias = numbers(size_out, dtype=half, device=device) if with_bias else None
    residual = numbers(1, size_out, dtype=half, device=device)
    expected = residual.float()
    linear_add_twin(x.float(), weight.float(), None if bias is None else bias.float(), expected)
    linear_add(x, weight, bias, residual, config=OneRowConfig(rows=4, piece=piece, warps=4))
    assert error(residual, expected) < 1e-2
