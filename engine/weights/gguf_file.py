"""A GGUF file as tensors under Hugging Face's names, dequantised to float32 on reading."""

import mmap
from pathlib import Path

import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from engine.models.config_json import ModelError
from engine.models.shape import ModelShape
from engine.models.tensors import EMBEDDING, FINAL_NORM, OUTPUT, ROPE_DIVISORS, layer_tensor
from protocol.gguf_header import GGUFError, GGUFHeader, GGUFTensor, read_header

# Values are computed in runs of about this many bytes, so that the intermediate arrays stay in the CPU's cache and in
# memory that the process keeps: with runs four times as long the demo model takes 2.0 s of CPU time instead of 1.1.
RUN_BYTES = 64 * 1024

NOT_WEIGHTS = ("I8", "I16", "I32", "I64", "F64")

WHOLE_MODEL = {
    "token_embd.weight": EMBEDDING,
    "output_norm.weight": FINAL_NORM,
    "output.weight": OUTPUT,
    "rope_freqs.weight": ROPE_DIVISORS,
}
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class GGUFFile:
    def __init__(self, path: Path, shape: ModelShape) -> None:
        self.place = str(path)
        self._header = _header(path)
        self._tensors = {_our_name(tensor.name): tensor for tensor in self._header.tensors.values()}
        with path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._heads = _interleaved_heads(self._header, shape)
        for tensor in self._tensors.values():
            if tensor.type_name in NOT_WEIGHTS:
                raise ModelError(f"{path}: tensor {tensor.name} has type {tensor.type_name}, which weights cannot have")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    def read(self, name: str, out: torch.Tensor) -> None:
        if out.is_cuda:  # values are computed on the CPU, and sent at once
            values = torch.empty_like(out, device="cpu")
            self.read(name, values)
            out.copy_(values)
            return
        tensor = self._tensors[name]
        heads = next((count for part, count in self._heads.items() if part in name), None)
        if heads is None:
            self._dequantise(tensor, out)
            return
        # llama.cpp's converter put the two rows of a rotated pair side by side in each head; we rotate halves.
        pairs = torch.empty(heads, out.shape[0] // heads // 2, 2, *out.shape[1:])
        self._dequantise(tensor, pairs)
        out.view(heads, 2, -1, *out.shape[1:]).copy_(pairs.transpose(1, 2))

    def _dequantise(self, tensor: GGUFTensor, out: torch.Tensor) -> None:
        """A run at a time, straight into place."""
        stored = np.frombuffer(self._data, np.uint8, tensor.num_bytes, tensor.offset)
        kind = GGMLQuantizationType(tensor.type_id)
        _, block_bytes = GGML_QUANT_SIZES[kind]
        step = max(1, RUN_BYTES // block_bytes) * block_bytes
        flat, done = out.view(-1), 0
        for start in range(0, len(stored), step):
            # As one row: gguf's own loop over rows costs four times the arithmetic.
            values = dequantize(stored[start : start + step].reshape(1, -1), kind)
            run = torch.from_numpy(np.require(values, requirements="W")).view(-1)  # F32 values are a view of the file
            flat[done : done + len(run)] = run
            done += len(run)


def _header(path: Path) -> GGUFHeader:
    try:
        return read_header(path)
    except GGUFError as error:
        raise ModelError(str(error)) from error


def _our_name(name: str) -> str:
    """Hugging Face's name of a GGUF tensor, or its own where we know none (the check then names it)."""
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[1].isdecimal() and parts[2] in LAYER:
        return layer_tensor(int(parts[1]), f"{LAYER[parts[2]]}.{parts[3]}")
    return WHOLE_MODEL.get(name, name)


def _interleaved_heads(header: GGUFHeader, shape: ModelShape) -> dict[str, int]:
    """The projections whose rows llama.cpp's converter reordered, and how many heads each has; only llama's are."""
    if header.get("general.architecture", str) != "llama":
        return {}
    return {".q_proj.": shape.num_heads, ".k_proj.": shape.num_kv_heads}
