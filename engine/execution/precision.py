"""Which device and number types a model runs in: what was asked for, what the device is good at."""

from dataclasses import dataclass

import torch

from engine.models.config_json import ModelError
from protocol.launch import Device, DType

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    name: DType
    rounded: torch.dtype  # weights are rounded to this type
    compute: torch.dtype  # weights, activations and KV cache are held in this one


def choose_device(asked: Device) -> torch.device:
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ModelError("--device cuda: torch sees no CUDA device; use --device cpu or install torch with CUDA")
    return torch.device("cuda", torch.cuda.current_device())


def choose_precision(asked: DType, trained: str, device: torch.device) -> Precision:
    """auto: a 16-bit type where the device multiplies it fast, else float32."""
    name = _automatic(trained, device) if asked == "auto" else asked
    rounded = TYPES[name]
    emulated = device.type == "cpu" and rounded != torch.float32 and not _cpu_multiplies(rounded)
    return Precision(name=name, rounded=rounded, compute=torch.float32 if emulated else rounded)


def _automatic(trained: str, device: torch.device) -> DType:
    if device.type == "cuda":
        return "float16" if trained == "float16" else "bfloat16"
    return "bfloat16" if _cpu_multiplies(torch.bfloat16) else "float32"


def _cpu_multiplies(dtype: torch.dtype) -> bool:
    """Whether the CPU has instructions for products of this type. Without them torch is up to ten times slower than
    in float32 (SmolLM2-135M, 32 rows, AVX2: 683 ms against 122), so such a CPU holds rounded weights as float32."""
    capabilities = torch.cpu.get_capabilities()
    if dtype == torch.bfloat16:
        return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))
    return bool(capabilities.get("amx_fp16"))
