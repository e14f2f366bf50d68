"""Decides the sizes of an engine from what was asked, the model's shape and the memory that is left."""

import psutil
import torch

from engine.config import EnginePlan
from engine.execution.precision import Precision
from engine.models.config_json import ModelError
from engine.models.shape import ModelShape
from protocol.launch import EngineConfig

GIB = 2**30
MAX_DEFAULT_CPU_CACHE = 4 * GIB


def choose_max_model_len(config: EngineConfig, shape: ModelShape) -> int:
    longest = shape.max_position_embeddings
    if config.max_model_len is None:
        return longest
    if config.max_model_len > longest:
        raise ModelError(
            f"--max-model-len {config.max_model_len} is more than the {longest} tokens this model was made for"
        )
    return config.max_model_len


def block_bytes(config: EngineConfig, shape: ModelShape, precision: Precision) -> int:
    """One block's keys and values over all layers."""
    per_token = 2 * shape.num_kv_heads * shape.head_dim * precision.cache.itemsize
    return per_token * config.block_size * shape.num_layers


def make_plan(config: EngineConfig, shape: ModelShape, device: torch.device, precision: Precision) -> EnginePlan:
    """Call it with the weights loaded: what they take is no longer free."""
    max_model_len = choose_max_model_len(config, shape)
    cache_bytes = config.kv_cache_memory_bytes or _free_for_cache(config, shape, device)
    one_block = block_bytes(config, shape, precision)
    num_blocks = cache_bytes // one_block
    blocks_per_row = -(-max_model_len // config.block_size)
    if num_blocks < blocks_per_row:
        raise ModelError(
            f"the KV cache of {cache_bytes / GIB:.2f} GiB holds {num_blocks * config.block_size} tokens, fewer than one"
            f" request of {max_model_len}; lower --max-model-len or raise --kv-cache-memory-bytes to"
            f" {blocks_per_row * one_block} or --gpu-memory-utilization"
        )
    return EnginePlan(
        device=str(device),
        dtype=precision.name,
        max_model_len=max_model_len,
        block_size=config.block_size,
        num_blocks=num_blocks,
        max_num_seqs=config.max_num_seqs,
        max_num_batched_tokens=config.max_num_batched_tokens,
        vocab_size=shape.vocab_size,
    )


def _free_for_cache(config: EngineConfig, shape: ModelShape, device: torch.device) -> int:
    if device.type == "cpu":
        return min(MAX_DEFAULT_CPU_CACHE, psutil.virtual_memory().available // 4)
    free, total = torch.cuda.mem_get_info(device)
    used = total - free
    return max(0, int(total * config.gpu_memory_utilization) - used - _workspace_bytes(config, shape))


def _workspace_bytes(config: EngineConfig, shape: ModelShape) -> int:
    """What a step needs beside weights and cache: activations of a full token budget, some copies of the logits."""
    widest = max(2 * shape.intermediate_size, shape.hidden_size + 2 * shape.num_kv_heads * shape.head_dim)
    activations = config.max_num_batched_tokens * widest * 4 * 4
    logits = config.max_num_seqs * shape.vocab_size * 4 * 6
    return activations + logits + GIB
