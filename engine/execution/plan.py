"""Decides the sizes of an engine before anything is loaded, from what was asked, the model's shape and the device."""

from dataclasses import dataclass

import torch

from engine.config import EnginePlan
from engine.execution.memory_plan import GIB, WEIGHTS, DeviceMemory, MemoryPlan, size
from engine.execution.precision import Precision
from engine.execution.prompt_logprobs import MAX_ROWS
from engine.models.config_json import ModelError
from engine.models.shape import ModelShape
from engine.models.tensors import num_parameters
from protocol.launch import EngineConfig

MAX_DEFAULT_CPU_CACHE = 4 * GIB
# A step's launches take the CPU about 16 ms, whatever its tokens (28 layers): a small model's GPU needs as many to be
# busy meanwhile. On a CPU a step of 2048 tokens takes seconds already.
CPU_TOKEN_BUDGET, GPU_TOKEN_BUDGET = 2048, 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class _Room:
    """What a device has for the KV cache; bytes."""

    parts: dict[str, int]  # what everything else takes
    limit: int
    limit_name: str
    spare: int  # for a cache whose size nobody asked for


def make_plan(
    config: EngineConfig, shape: ModelShape, device: torch.device, precision: Precision, memory: DeviceMemory
) -> tuple[EnginePlan, MemoryPlan]:
    """Raises `ModelError` where the plan asks too much, whatever is free at the moment."""
    max_model_len = _choose_max_model_len(config, shape)
    token_budget = _choose_token_budget(config, max_model_len, device)
    if device.type == "cpu":
        room = _cpu_room(shape, precision, memory)
    else:
        room = _gpu_room(config, _gpu_parts(config, shape, precision, max_model_len, token_budget), memory)
    one_block = _block_bytes(config, shape, precision)
    memory_plan = _give_the_rest_to_the_cache(config, device, room, one_block)
    _check_fits(config, memory_plan)
    _check_holds_a_request(config, memory_plan, max_model_len, one_block)
    plan = EnginePlan(
        device=str(device),
        dtype=precision.name,
        max_model_len=max_model_len,
        block_size=config.block_size,
        num_blocks=memory_plan.kv_cache // one_block,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=token_budget,
        vocab_size=shape.vocab_size,
        max_logprobs=min(config.max_logprobs, shape.vocab_size),
    )
    return plan, memory_plan


def _choose_max_model_len(config: EngineConfig, shape: ModelShape) -> int:
    longest = shape.max_position_embeddings
    if config.max_model_len is None:
        return longest
    if config.max_model_len > longest:
        raise ModelError(
            f"--max-model-len {config.max_model_len} is more than the {longest} tokens this model was made for"
        )
    return config.max_model_len


def _choose_token_budget(config: EngineConfig, max_model_len: int, device: torch.device) -> int:
    """Of a step, where none was asked for: enough to keep the device busy, a prompt's whole if it may not be cut."""
    if config.max_num_batched_tokens is not None:
        return config.max_num_batched_tokens
    enough = CPU_TOKEN_BUDGET if device.type == "cpu" else GPU_TOKEN_BUDGET
    return max(enough, config.max_num_seqs, 0 if config.enable_chunked_prefill else max_model_len)


def _block_bytes(config: EngineConfig, shape: ModelShape, precision: Precision) -> int:
    """One block's keys and values over all layers."""
    per_token = 2 * shape.num_kv_heads * shape.head_dim * precision.cache.itemsize
    return per_token * config.block_size * shape.num_layers


def _gpu_parts(
    config: EngineConfig, shape: ModelShape, precision: Precision, max_model_len: int, token_budget: int
) -> dict[str, int]:
    from engine.execution.gpu.footprint import GpuSizes, gpu_parts
    from engine.execution.gpu.graphs import graph_sizes

    sizes = GpuSizes(
        itemsize=precision.compute.itemsize,
        max_model_len=max_model_len,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=token_budget,
        max_logprobs=min(config.max_logprobs, shape.vocab_size),
        block_size=config.block_size,
        num_graph_sizes=len(graph_sizes(config.max_num_seqs)),
        prompt_logprob_rows=min(token_budget, MAX_ROWS),
    )
    return gpu_parts(shape, sizes)


def _cpu_room(shape: ModelShape, precision: Precision, memory: DeviceMemory) -> _Room:
    """Other programs need memory too, and what a step takes is little beside the weights."""
    weights = num_parameters(shape) * (2 if precision.packed else precision.compute.itemsize)
    return _Room(
        parts={WEIGHTS: weights},
        limit=memory.total,
        limit_name="all of the machine",
        spare=min(MAX_DEFAULT_CPU_CACHE, (memory.free - weights) // 4),
    )


def _gpu_room(config: EngineConfig, parts: dict[str, int], memory: DeviceMemory) -> _Room:
    """A KV cache that was asked for by its size may reach beyond the utilization."""
    share = config.gpu_memory_utilization
    limit, name = int(memory.total * share), f"--gpu-memory-utilization {share:g} of {size(memory.total)}"
    if config.kv_cache_memory_bytes is not None:
        limit, name = memory.total, "all of the device"
    return _Room(parts=parts, limit=limit, limit_name=name, spare=limit - sum(parts.values()))


def _give_the_rest_to_the_cache(config: EngineConfig, device: torch.device, room: _Room, one_block: int) -> MemoryPlan:
    num_blocks = max(0, config.kv_cache_memory_bytes or room.spare) // one_block
    return MemoryPlan(
        device=str(device),
        limit=room.limit,
        limit_name=room.limit_name,
        parts=room.parts,
        kv_cache=num_blocks * one_block,
        num_cache_tokens=num_blocks * config.block_size,
    )


def _check_fits(config: EngineConfig, plan: MemoryPlan) -> None:
    asked = config.kv_cache_memory_bytes
    if plan.needed <= plan.limit and (asked or sum(plan.parts.values()) < plan.limit):
        return
    weights = plan.parts[WEIGHTS]
    others = sum(plan.parts.values()) - weights
    taken = f"weights of {size(weights)}" + (f" and {size(others)} for steps" if others else "")
    limit = f"{size(plan.limit)} ({plan.limit_name})"
    problem = (
        f"{taken} and --kv-cache-memory-bytes {asked} are more than {limit}"
        if asked
        else f"{taken} leave nothing of {limit} for a KV cache"
    )
    flags = ["--kv-cache-memory-bytes"] * bool(asked)
    flags += ["--max-num-seqs", "--max-num-batched-tokens", "--max-model-len"] * bool(others)
    lower = f"lower {', '.join(flags)} or " if flags else ""
    raise ModelError(f"{plan.device}: {problem}; {lower}choose a smaller model")


def _check_holds_a_request(config: EngineConfig, plan: MemoryPlan, max_model_len: int, one_block: int) -> None:
    if plan.num_cache_tokens >= max_model_len:
        return
    least = -(-max_model_len // config.block_size) * one_block
    raise ModelError(
        f"the KV cache of {plan.kv_cache / GIB:.2f} GiB holds {plan.num_cache_tokens} tokens, fewer than one"
        f" request of {max_model_len}; lower --max-model-len or raise --kv-cache-memory-bytes to"
        f" {least} or --gpu-memory-utilization"
    )
