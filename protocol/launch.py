"""What the supervisor asks of an engine core: one frozen record, handed over as JSON on the child's standard input."""

from typing import Literal

import msgspec

from protocol.sampling import UInt64

DType = Literal["auto", "float32", "bfloat16", "float16"]
LoadFormat = Literal["auto", "safetensors", "gguf", "dummy"]
Device = Literal["auto", "cuda", "cpu"]
SchedulingPolicy = Literal["fcfs", "priority"]


class ModelFiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a resolved model lies. The supervisor has downloaded or unpacked whatever MODEL named."""

    name: str  # MODEL as the user wrote it
    config_dir: str  # holds config.json (and generation_config.json), tokenizer.json, chat template
    weights: str  # a folder of .safetensors files, or one .gguf file


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked of an engine core. What it decides once it saw the device is `engine.config.EnginePlan`."""

    rank: int
    epoch: UInt64
    address: str  # where the ROUTER binds: ipc:///run/dir/engine-0-<epoch>.sock
    hash_key: bytes  # keys the prefix-cache hash chain; new at each server start
    model: ModelFiles
    device: Device = "auto"
    dtype: DType = "auto"
    load_format: LoadFormat = "auto"
    seed: int = 0  # of dummy weights
    max_model_len: int | None = None
    block_size: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int | None = None  # None: what suits the device
    max_num_queued_reqs: int = 4096  # waiting rows beyond which a Submit is refused
    max_num_queued_tokens: int = 4_194_304  # the same in prompt tokens
    max_logprobs: int = 20
    gpu_memory_utilization: float = 0.9
    kv_cache_memory_bytes: int | None = None
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    scheduling_policy: SchedulingPolicy = "fcfs"
    num_threads: int | None = None  # CPU: intra-op threads; None: cores - 1
    log_level: str = "info"
    supervisor_pid: int  # the engine core ends with it
    control_fd: int  # `protocol.process`: the child's end of the control channel
    scoreboard_fd: int
