"""What is added up on paper against what the same sizes really allocate."""

import pytest
import torch

from engine.config import EnginePlan
from engine.execution.gpu.footprint import STAGING_BYTES, GpuSizes, gpu_parts
from engine.execution.slot_tables import SlotTables
from engine.kernels.decode_attention import decode_scratch
from engine.kernels.tuning import DECODE
from engine.models.shape import ModelShape, read_shape
from tests.helpers.small_models import save_model

CPU = torch.device("cpu")
PLAN = EnginePlan(
    device="cpu",
    dtype="bfloat16",
    max_model_len=4097,
    block_size=16,
    num_blocks=300,
    max_num_seqs=100,
    max_num_batched_tokens=2048,
    max_logprobs=20,
    vocab_size=199,
)
SIZES = GpuSizes(
    itemsize=2,
    max_model_len=PLAN.max_model_len,
    max_num_seqs=PLAN.max_num_seqs,
    max_num_batched_tokens=PLAN.max_num_batched_tokens,
    max_logprobs=20,
    block_size=PLAN.block_size,
    num_graph_sizes=10,
    prompt_logprob_rows=128,
)


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    folder = tmp_path_factory.mktemp("model")
    save_model("qwen3", folder)
    return read_shape(folder)


def num_bytes(tensors: list[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors)


def test_tables_of_the_rows(shape: ModelShape) -> None:
    tables = SlotTables(PLAN, CPU)
    scratch = decode_scratch(
        max_rows=PLAN.max_num_seqs,
        max_programs=max(config.programs for _, config in DECODE),
        num_heads=shape.num_heads,
        num_kv_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        device=CPU,
    )
    real = num_bytes([tables.history, tables.blocks, scratch.items, scratch.parts, scratch.weights, scratch.arrivals])
    planned = gpu_parts(shape, SIZES)["rows"] - STAGING_BYTES
    assert real <= planned <= real * 1.1


def test_a_layer_at_its_widest(shape: ModelShape) -> None:
    """Gate and up, their product and what comes of it, beside residual stream, input, and cos and sin."""
    tokens, hidden, inner, head = 2048, shape.hidden_size, shape.intermediate_size, shape.head_dim
    real = tokens * (3 * inner + 3 * hidden + 2 * head) * 2
    assert gpu_parts(shape, SIZES)["activations"] > real
