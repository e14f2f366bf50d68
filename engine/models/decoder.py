"""The forward pass of a dense decoder, from token ids to the hidden states that logits are made of.

It knows nothing of slots, requests or sampling; what the rows of a step may attend to comes as `AttentionInputs`.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from engine.kernels.activation import silu_mul
from engine.kernels.early import MAX_NORMED
from engine.kernels.rms_norm import add_rms_norm, rms_norm
from engine.kernels.rotary import HeadLayout, rotate_and_store
from engine.models.linear import Linear, plain
from engine.models.rope_scaling import inverse_frequencies
from engine.models.shape import ModelShape


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    input_norm: Tensor
    qkv: Linear  # rows: all q heads, then k, then v
    q_norm: Tensor | None
    k_norm: Tensor | None
    output: Linear
    post_norm: Tensor
    gate_up: Linear  # rows: gate, then up
    down: Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderWeights:
    embedding: Tensor  # [vocab, hidden]
    layers: list[LayerWeights]
    final_norm: Tensor
    head: Linear  # to logits
    rope_divisors: Tensor | None  # [head_dim / 2]


class Attention(Protocol):
    """What a step's tokens may attend to; built once a step, used by every layer."""

    @property
    def slots(self) -> Tensor:
        """[N] block * block size + offset: where each token's key and value are stored."""

    def attend(self, q: Tensor, cache: Tensor) -> Tensor:
        """q [N, q heads, head_dim] over one layer's cache -> [N, q heads * head_dim]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepInputs:
    """One step as the model sees it: N tokens, and S of them that logits are made of."""

    tokens: Tensor  # [N] int64
    positions: Tensor  # [N] int64
    attention: Attention
    wanted: Tensor | None  # [S] int64: the tokens whose hidden states are returned; None: all of them


class Decoder:
    def __init__(self, shape: ModelShape, weights: DecoderWeights, *, max_positions: int) -> None:
        self._weights = weights
        self._eps = shape.norm_eps
        self._heads = HeadLayout(num_heads=shape.num_heads, num_kv_heads=shape.num_kv_heads, head_dim=shape.head_dim)
        self._cos, self._sin = _rope_tables(shape, weights, max_positions)
        self._may_fuse = weights.final_norm.is_cuda and shape.hidden_size <= MAX_NORMED

    def hidden(self, inputs: StepInputs, cache: list[Tensor]) -> Tensor:
        """[S, hidden] final hidden states of the wanted tokens; keys and values go into `cache`."""
        cos, sin = self._cos.index_select(0, inputs.positions), self._sin.index_select(0, inputs.positions)
        residual = functional.embedding(inputs.tokens, self._weights.embedding).to(cos.dtype)
        if self._may_fuse and inputs.wanted is None and len(residual) == 1:
            return self._hidden_of_one(residual, cos, sin, inputs.attention, cache)
        eps, layers = self._eps, self._weights.layers
        x = rms_norm(residual, layers[0].input_norm, eps)
        for index, layer in enumerate(layers):
            last = index + 1 == len(layers)
            x = self._attend(layer, layer.qkv(x), cos, sin, inputs.attention, cache[index])
            if last and inputs.wanted is not None:  # what follows concerns each token alone
                x, residual = x.index_select(0, inputs.wanted), residual.index_select(0, inputs.wanted)
            x = add_rms_norm(layer.output(x), residual, layer.post_norm, eps)
            x = layer.down(silu_mul(layer.gate_up(x)))
            x = add_rms_norm(x, residual, self._weights.final_norm if last else layers[index + 1].input_norm, eps)
        return x

    def _hidden_of_one(
        self, residual: Tensor, cos: Tensor, sin: Tensor, attention: Attention, cache: list[Tensor]
    ) -> Tensor:
        """The same for one row: reading the matrices is the work, and each is read in one launch with all around it."""
        from engine.kernels.one_row import linear_add, norm_gated, norm_linear  # here: a CPU has no use for Triton

        eps = self._eps
        for layer, of_layer in zip(self._weights.layers, cache, strict=True):
            qkv, output, gate_up, down = (
                plain(matrix) for matrix in (layer.qkv, layer.output, layer.gate_up, layer.down)
            )
            x = norm_linear(residual, layer.input_norm, eps, qkv.weight, qkv.bias)
            x = self._attend(layer, x, cos, sin, attention, of_layer)
            linear_add(x, output.weight, output.bias, residual)
            x = norm_gated(residual, layer.post_norm, eps, gate_up.weight)
            linear_add(x, down.weight, down.bias, residual)
        return rms_norm(residual, self._weights.final_norm, eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """[S, vocab] in float32."""
        return self._weights.head(hidden).float()

    def logits_into(self, hidden: Tensor, out: Tensor) -> None:
        """The same in the model's type, into memory that a CUDA graph may keep."""
        self._weights.head.multiply_into(hidden, out)

    def _attend(
        self, layer: LayerWeights, qkv: Tensor, cos: Tensor, sin: Tensor, attention: Attention, cache: Tensor
    ) -> Tensor:
        """[N, (q + 2 kv heads) * head_dim] -> [N, q heads * head_dim]."""
        norms = None if layer.q_norm is None or layer.k_norm is None else (layer.q_norm, layer.k_norm, self._eps)
        q = rotate_and_store(qkv, cos, sin, norms, cache, attention.slots, self._heads)
        return attention.attend(q, cache)


def _rope_tables(shape: ModelShape, weights: DecoderWeights, max_positions: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines [max_positions, 1, head_dim], the sines of the first half negated (see kernels/rotary.py)."""
    device, dtype = weights.final_norm.device, weights.final_norm.dtype
    frequencies = torch.tensor(inverse_frequencies(shape.rope, shape.head_dim), device=device)
    if weights.rope_divisors is not None:
        frequencies = frequencies / weights.rope_divisors
    angles = torch.arange(max_positions, device=device, dtype=torch.float32)[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([cos, cos], -1)[:, None].to(dtype), torch.cat([-sin, sin], -1)[:, None].to(dtype)
