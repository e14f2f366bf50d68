"""From a source of named tensors to the fused matrices that the decoder multiplies with."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.models.config_json import ModelError
from engine.models.decoder import DecoderWeights, LayerWeights
from engine.models.linear import Linear, make_linear
from engine.models.shape import ModelShape
from engine.models.tensors import EMBEDDING, FINAL_NORM, OUTPUT, ROPE_DIVISORS, layer_tensor
from engine.weights.dummy import DummyWeights
from engine.weights.source import TensorSource
from protocol.launch import EngineConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where weights go, and in which types (see `engine.execution.precision`)."""

    device: torch.device
    rounded: torch.dtype
    compute: torch.dtype
    packed: bool


def open_source(config: EngineConfig, shape: ModelShape) -> TensorSource:
    """What --load-format says, or what MODEL is."""
    if config.load_format == "dummy":
        return DummyWeights(shape, config.seed)
    path = Path(config.model.weights)
    kind = "gguf" if path.is_file() else "safetensors"
    if config.load_format not in ("auto", kind):
        raise ModelError(f"{path} is {kind}, but --load-format says {config.load_format}; leave it at auto")
    if kind == "gguf":
        from engine.weights.gguf_file import GGUFFile  # the gguf library costs 70 ms

        return GGUFFile(path, shape)
    from engine.weights.safetensors_folder import SafetensorsFolder

    return SafetensorsFolder(path)


def load_weights(source: TensorSource, shape: ModelShape, placement: Placement) -> DecoderWeights:
    """Read all of a checked source, several layers at a time: reading, dequantising and packing leave Python's lock."""
    loader = _Loader(source, shape, placement)
    with ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1))) as pool:
        # The largest first, so that no thread is left alone with it at the end.
        head = None if loader.head_is_embedding else pool.submit(loader.head)
        embedding = pool.submit(loader.embedding)
        layers = list(pool.map(loader.layer, range(shape.num_layers)))
        table = embedding.result()
        return DecoderWeights(
            embedding=table,
            layers=layers,
            final_norm=loader.vector(FINAL_NORM),
            head=make_linear(table, None, packed=False) if head is None else head.result(),
            rope_divisors=loader.rope_divisors(),
        )


class _Loader:
    """Fuses, converts and places single tensors."""

    def __init__(self, source: TensorSource, shape: ModelShape, placement: Placement) -> None:
        self._source = source
        self._shape = shape
        self._placement = placement

    @property
    def head_is_embedding(self) -> bool:
        """One matrix in one type for both: it is kept once."""
        types = self._placement
        return self._shape.tied_embeddings and types.compute == types.rounded and not types.packed

    def embedding(self) -> Tensor:
        """A table that is only looked up: its rows are widened after that."""
        return self._fused([EMBEDDING], self._placement.rounded)

    def head(self) -> Linear:
        name = EMBEDDING if self._shape.tied_embeddings else OUTPUT
        return make_linear(self._fused([name], self._placement.compute), None, packed=self._placement.packed)

    def rope_divisors(self) -> Tensor | None:
        if ROPE_DIVISORS not in self._source.shapes():
            return None
        divisors = torch.empty(self._source.shapes()[ROPE_DIVISORS], device=self._placement.device)
        self._source.read(ROPE_DIVISORS, divisors)
        return divisors

    def layer(self, index: int) -> LayerWeights:
        def named(*names: str) -> list[str]:
            return [layer_tensor(index, name) for name in names]

        shape = self._shape
        q_norm, k_norm = named("self_attn.q_norm.weight", "self_attn.k_norm.weight")
        return LayerWeights(
            input_norm=self.vector(*named("input_layernorm.weight")),
            qkv=self._linear(named(*(f"self_attn.{part}_proj" for part in "qkv")), bias=shape.qkv_bias),
            q_norm=self.vector(q_norm) if shape.qk_norm else None,
            k_norm=self.vector(k_norm) if shape.qk_norm else None,
            output=self._linear(named("self_attn.o_proj"), bias=shape.output_bias),
            post_norm=self.vector(*named("post_attention_layernorm.weight")),
            gate_up=self._linear(named("mlp.gate_proj", "mlp.up_proj"), bias=False),
            down=self._linear(named("mlp.down_proj"), bias=False),
        )

    def vector(self, name: str) -> Tensor:
        return self._fused([name], self._placement.compute)

    def _linear(self, names: list[str], *, bias: bool) -> Linear:
        compute = self._placement.compute
        weight = self._fused([f"{name}.weight" for name in names], compute)
        biases = self._fused([f"{name}.bias" for name in names], compute) if bias else None
        return make_linear(weight, biases, packed=self._placement.packed)

    def _fused(self, names: list[str], dtype: torch.dtype) -> Tensor:
        """The named tensors one below the other, rounded as weights are."""
        dims = [self._source.shapes()[name] for name in names]
        rows = [first for first, *_ in dims]
        fused = torch.empty(sum(rows), *dims[0][1:], dtype=self._placement.rounded, device=self._placement.device)
        for name, part in zip(names, torch.split(fused, rows), strict=True):
            self._source.read(name, part)
        return fused.to(dtype)
