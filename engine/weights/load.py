"""From a source of named tensors to the fused matrices that the decoder multiplies with."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.models.config_json import ModelError
from engine.models.decoder import DecoderWeights, LayerWeights
from engine.models.linear import Linear
from engine.models.shape import ModelShape
from engine.models.tensors import EMBEDDING, FINAL_NORM, OUTPUT, ROPE_DIVISORS, layer_tensor
from engine.weights.dummy import DummyWeights
from engine.weights.source import TensorSource, check_tensors
from protocol.launch import EngineConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where weights go, and in which types."""

    device: torch.device
    rounded: torch.dtype  # values are rounded to this type
    compute: torch.dtype  # and held in this one


def open_source(config: EngineConfig, shape: ModelShape) -> TensorSource:
    """What --load-format says, or what MODEL is."""
    if config.load_format == "dummy":
        return DummyWeights(shape, config.seed)
    path = Path(config.model.weights)
    kind = "gguf" if path.is_file() else "safetensors"
    if config.load_format not in ("auto", kind):
        raise ModelError(f"{path} is {kind}, but --load-format says {config.load_format}; leave it at auto")
    if kind == "gguf":
        from engine.weights.gguf_file import GGUFFile  # noqa: PLC0415 - the gguf library costs 70 ms

        return GGUFFile(path, shape)
    from engine.weights.safetensors_folder import SafetensorsFolder  # noqa: PLC0415 - needed for such folders only

    return SafetensorsFolder(path)


def load_weights(source: TensorSource, shape: ModelShape, placement: Placement) -> DecoderWeights:
    """Read everything, several layers at a time: dequantising and reading both leave Python's lock."""
    check_tensors(source, shape)
    loader = _Loader(source, shape, placement)
    with ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1))) as pool:
        embedding = pool.submit(loader.matrix, [EMBEDDING])
        head = None if shape.tied_embeddings else pool.submit(loader.matrix, [OUTPUT])
        layers = list(pool.map(loader.layer, range(shape.num_layers)))
        table = embedding.result()
        return DecoderWeights(
            embedding=table,
            layers=layers,
            final_norm=loader.matrix([FINAL_NORM]),
            head=Linear(table if head is None else head.result()),
            rope_divisors=source.read(ROPE_DIVISORS).float() if ROPE_DIVISORS in source.shapes() else None,
        )


class _Loader:
    """Fuses, converts and places single tensors."""

    def __init__(self, source: TensorSource, shape: ModelShape, placement: Placement) -> None:
        self._source = source
        self._shape = shape
        self._placement = placement

    def layer(self, index: int) -> LayerWeights:
        def named(*names: str) -> list[str]:
            return [layer_tensor(index, name) for name in names]

        shape, attention = self._shape, "self_attn."
        return LayerWeights(
            input_norm=self.matrix(named("input_layernorm.weight")),
            qkv=self._linear(named(*(f"{attention}{part}_proj" for part in "qkv")), bias=shape.qkv_bias),
            q_norm=self.matrix(named("self_attn.q_norm.weight")) if shape.qk_norm else None,
            k_norm=self.matrix(named("self_attn.k_norm.weight")) if shape.qk_norm else None,
            output=self._linear(named("self_attn.o_proj"), bias=shape.output_bias),
            post_norm=self.matrix(named("post_attention_layernorm.weight")),
            gate_up=self._linear(named("mlp.gate_proj", "mlp.up_proj"), bias=False),
            down=self._linear(named("mlp.down_proj"), bias=False),
        )

    def matrix(self, names: list[str]) -> Tensor:
        """The named tensors one below the other."""
        dims = [self._source.shapes()[name] for name in names]
        fused = torch.empty(
            sum(rows for rows, *_ in dims), *dims[0][1:], dtype=self._placement.compute, device=self._placement.device
        )
        for name, part in zip(names, torch.split(fused, [rows for rows, *_ in dims]), strict=True):
            part.copy_(self._source.read(name).to(self._placement.rounded))
        return fused

    def _linear(self, names: list[str], *, bias: bool) -> Linear:
        weight = self.matrix([f"{name}.weight" for name in names])
        return Linear(weight, self.matrix([f"{name}.bias" for name in names]) if bias else None)
