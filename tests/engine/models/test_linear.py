"""Every way to multiply gives the same product."""

import pytest
import torch

from engine.models.linear import MAX_FLIPPED_ROWS, PackedHalfLinear, PlainLinear, can_pack_half, make_linear


@pytest.mark.parametrize("rows", [1, 2, MAX_FLIPPED_ROWS, MAX_FLIPPED_ROWS + 1, 40])
def test_rows_do_not_change_the_product(rows: int) -> None:
    weight, x = torch.randn(24, 10), torch.randn(rows, 10)
    product = PlainLinear(weight)(x)
    torch.testing.assert_close(product, x @ weight.T)
    assert product.is_contiguous()


@pytest.mark.skipif(not can_pack_half(), reason="torch was built without FBGEMM")
def test_packed_weights_of_either_sixteen_bit_type() -> None:
    x, bias = torch.randn(7, 10), torch.randn(24)
    for dtype in (torch.float16, torch.bfloat16):
        weight = (torch.randn(24, 10) * 0.1).to(dtype).float()
        torch.testing.assert_close(PackedHalfLinear(weight, bias)(x), x @ weight.T + bias, atol=1e-5, rtol=1e-5)


def test_weights_beyond_float16_are_not_packed() -> None:
    weight = torch.full((4, 4), 1e6)
    assert isinstance(make_linear(weight, None, packed=True), PlainLinear)
