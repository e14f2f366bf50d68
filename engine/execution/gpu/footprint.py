"""How many bytes a GPU engine takes beside its KV cache, from its sizes alone. No torch.

Each sum names what is alive at once at the worst moment; `scripts/check_memory.py` holds them against a real card.
"""

from dataclasses import dataclass

from engine.execution.gpu.sampling_layout import sampler_bytes
from engine.execution.memory_plan import CUDA, GIB, MIB, WEIGHTS
from engine.kernels.tuning import DECODE, FILTER_RUNS, LONG_PREFILL
from engine.models.shape import ModelShape
from engine.models.tensors import num_parameters

FLOAT32 = INT32 = 4

# The context (0.5 GiB on an H100), kernels that are loaded when they are first used, and what cuBLAS and cuDNN load.
CUDA_BYTES = GIB
# torch rounds what it asks the device for up to runs of 2 or 20 MiB, and cannot join free runs.
ALLOCATOR_SHARE = 0.03
CUBLAS_BYTES = 160 * MIB  # its workspaces, taken from torch, for each stream that multiplies
# What the driver keeps of the graphs of one batch size: three hundred nodes or so, and their instances.
GRAPH_BYTES = 8 * MIB
MIXED_GRAPH_TOKENS = 512  # of prompt chunks in a step that has a graph
STAGING_BYTES = 17 * MIB
PROMPT_LOGPROB_COPIES = 4  # logits, log-softmax, its comparison and what topk sorts, for the tokens scored at once


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSizes:
    """What the footprint depends on beside the model's shape."""

    itemsize: int  # of weights, activations and cache
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    max_logprobs: int
    block_size: int
    num_graph_sizes: int
    prompt_logprob_rows: int  # prompt tokens whose logits are held at once


def gpu_parts(shape: ModelShape, sizes: GpuSizes) -> dict[str, int]:
    """By the names of `MemoryPlan.parts`."""
    working = {
        "activations": _activations(shape, sizes),
        "logits": sizes.max_num_seqs * shape.vocab_size * sizes.itemsize,
        "sampling": _sampling(shape, sizes),
        "prompt log-probabilities": _prompt_logprobs(shape, sizes),
        "CUDA graphs": _graphs(shape, sizes),
    }
    fixed = {WEIGHTS: _weights(shape, sizes), "rows": _rows(shape, sizes)}
    slack = {"slack": int(ALLOCATOR_SHARE * sum((*working.values(), *fixed.values())))}
    return fixed | working | slack | {CUDA: CUDA_BYTES}


def _weights(shape: ModelShape, sizes: GpuSizes) -> int:
    """With the tables of RoPE."""
    return (num_parameters(shape) + 2 * sizes.max_model_len * shape.head_dim) * sizes.itemsize


def _rows(shape: ModelShape, sizes: GpuSizes) -> int:
    """Token history and block table of each slot, and what decode attention leaves for itself."""
    blocks = -(-sizes.max_model_len // sizes.block_size)
    tables = sizes.max_num_seqs * (sizes.max_model_len + 1 + blocks) * INT32
    items = sizes.max_num_seqs + -(-max(config.programs for _, config in DECODE) // shape.num_kv_heads)
    scratch = items * (shape.num_heads * (shape.head_dim + 1) + shape.num_kv_heads + 8) * FLOAT32
    return tables + scratch + STAGING_BYTES


def _activations(shape: ModelShape, sizes: GpuSizes) -> int:
    """Of a full token budget, eagerly."""
    tokens = sizes.max_num_batched_tokens
    return tokens * _token_bytes(shape, sizes.itemsize) + _long_prefill(shape, sizes) + CUBLAS_BYTES


def _token_bytes(shape: ModelShape, itemsize: int) -> int:
    """The widest moment of a layer for one token, beside the residual stream, the layer's input, cos and sin."""
    q, kv, hidden, inner = (
        shape.num_heads * shape.head_dim,
        shape.num_kv_heads * shape.head_dim,
        shape.hidden_size,
        shape.intermediate_size,
    )
    projected = q + 2 * kv + q  # what the projection gave, and the queries taken from it
    attended = 2 * q + 2 * hidden  # queries, their result, and its projection
    picked = q + hidden  # the last layer's rows whose log-probabilities are wanted
    gated = 3 * inner + hidden  # gate and up, their product, and its projection
    widest = max(projected, attended + picked, gated)
    numbers = 8 * INT32  # token, position, slot, and places
    return (2 * hidden + 2 * shape.head_dim + widest) * itemsize + numbers


def _long_prefill(shape: ModelShape, sizes: GpuSizes) -> int:
    """One chunk that goes to cuDNN: keys and values of its row side by side, queries, and two results to merge."""
    if sizes.max_num_batched_tokens < LONG_PREFILL.least_queries:
        return 0
    spare = 2 * LONG_PREFILL.multiple
    keys = (sizes.max_model_len + spare) * 2 * shape.num_kv_heads * shape.head_dim * sizes.itemsize
    queries = (sizes.max_num_batched_tokens + spare) * shape.num_heads
    return keys + queries * (4 * shape.head_dim * sizes.itemsize + 4 * FLOAT32)


def _sampling(shape: ModelShape, sizes: GpuSizes) -> int:
    """What rows ask for beyond temperature and filters; the rest is of eager draws."""
    slots, vocab_size = sizes.max_num_seqs, shape.vocab_size
    kept = sampler_bytes(max_num_seqs=slots, vocab_size=vocab_size, max_logprobs=sizes.max_logprobs)
    return kept + _draw(slots, vocab_size)


def _draw(num_rows: int, vocab_size: int) -> int:
    """Maxima and sums of runs, the runs that filters look at, and a few numbers a row."""
    return num_rows * (2 * -(-vocab_size // 64) + FILTER_RUNS.size + 16) * FLOAT32


def _prompt_logprobs(shape: ModelShape, sizes: GpuSizes) -> int:
    return sizes.prompt_logprob_rows * shape.vocab_size * (sizes.itemsize + PROMPT_LOGPROB_COPIES * FLOAT32)


def _graphs(shape: ModelShape, sizes: GpuSizes) -> int:
    """Their shared pool, as large as the largest needs, and what the driver keeps of each."""
    tokens = sizes.max_num_seqs + MIXED_GRAPH_TOKENS
    draw = _draw(sizes.max_num_seqs, shape.vocab_size)
    return tokens * _token_bytes(shape, sizes.itemsize) + draw + sizes.num_graph_sizes * GRAPH_BYTES
