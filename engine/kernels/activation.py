"""SiLU(gate) * up, the gated activation of the feed-forward layers."""

from torch import Tensor
from torch.nn import functional


def silu_mul(gate_up: Tensor) -> Tensor:
    """[N, 2 I] with the gates in the first half -> [N, I]. May overwrite its argument."""
    assert gate_up.shape[-1] % 2 == 0
    return silu_mul_twin(gate_up)


def silu_mul_twin(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate).mul_(up)
