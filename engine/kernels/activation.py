"""SiLU(gate) * up, the gated activation of the feed-forward layers."""

from torch import Tensor
from torch.nn import functional


def silu_mul(gate_up: Tensor) -> Tensor:
    """[N, 2 I] with the gates in the first half -> [N, I]. May overwrite its argument."""
    assert gate_up.shape[-1] % 2 == 0
    if gate_up.is_cuda:
        from engine.kernels import activation_triton  # here: only a GPU needs it, and importing it takes time

        return activation_triton.silu_mul(gate_up)
    return silu_mul_twin(gate_up)


def silu_mul_twin(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return functional.silu(gate).mul_(up)
