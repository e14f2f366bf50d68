"""Which device and number types a model runs in: what was asked for, what the device is good at."""

from dataclasses import dataclass

import torch

from engine.models.config_json import ModelError
from engine.models.linear import can_pack_half
from protocol.launch import Device, DType

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    name: DType
    rounded: torch.dtype  # weights are rounded to this type
    compute: torch.dtype  # activations, and weights that are not packed
    cache: torch.dtype  # keys and values
    packed: bool = False  # matrices are held in 16 bits and multiplied with float32 rows


def choose_device(asked: Device) -> torch.device:
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ModelError("--device cuda: torch sees no CUDA device; use --device cpu or install torch with CUDA")
    return torch.device("cuda", torch.cuda.current_device())


def choose_precision(asked: DType, trained: str, device: torch.device) -> Precision:
    """auto: a 16-bit type where the device multiplies it natively or packed, else float32."""
    name = _automatic(trained, device) if asked == "auto" else asked
    rounded = TYPES[name]
    if name == "float32" or device.type == "cuda" or _cpu_multiplies(rounded):
        return Precision(name=name, rounded=rounded, compute=rounded, cache=rounded)
    # torch's own 16-bit products are five times slower than float32's on such a CPU (32 rows: 683 ms against 122),
    # and so is its attention in float16, but not in bfloat16.
    cache = torch.float32 if name == "float16" else rounded
    return Precision(name=name, rounded=rounded, compute=torch.float32, cache=cache, packed=can_pack_half())


def _automatic(trained: str, device: torch.device) -> DType:
    if device.type == "cuda":
        return "float16" if trained == "float16" else "bfloat16"
    return "bfloat16" if _cpu_multiplies(torch.bfloat16) or can_pack_half() else "float32"


def _cpu_multiplies(dtype: torch.dtype) -> bool:
    """Whether the CPU has instructions for products of this type."""
    capabilities = torch.cpu.get_capabilities()
    if dtype == torch.bfloat16:
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return bool(capabilities.get("amx_fp16", False))
