"""Sizes and types: what is decided, and the sentence when something does not fit."""

from pathlib import Path

import pytest
import torch

from engine.execution import precision as precision_module
from engine.execution.plan import make_plan
from engine.execution.precision import Precision, choose_device, choose_precision
from engine.models.shape import ModelError, ModelShape, read_shape
from protocol.launch import DType
from tests.helpers.drive_runner import engine_config
from tests.helpers.small_models import save_model

CPU = torch.device("cpu")
FLOAT32 = Precision(name="float32", rounded=torch.float32, compute=torch.float32, cache=torch.float32)
ONE_BLOCK = 3 * 16 * 2 * 2 * 16 * 4  # layers, tokens, k and v, kv heads, head_dim, bytes


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    folder = tmp_path_factory.mktemp("model")
    save_model("llama", folder)
    return read_shape(folder)


def test_the_cache_takes_what_it_was_given(shape: ModelShape) -> None:
    plan = make_plan(engine_config(Path(), kv_cache_memory_bytes=20 * ONE_BLOCK + 7), shape, CPU, FLOAT32)
    assert (plan.num_blocks, plan.max_model_len, plan.max_blocks_per_row) == (20, 256, 16)
    assert (plan.device, plan.dtype, plan.vocab_size) == ("cpu", "float32", 199)


def test_a_cache_too_small_for_one_request_names_the_flags(shape: ModelShape) -> None:
    config = engine_config(Path(), kv_cache_memory_bytes=15 * ONE_BLOCK)
    with pytest.raises(ModelError, match=r"holds 240 tokens, fewer than one request of 256; lower --max-model-len or"):
        make_plan(config, shape, CPU, FLOAT32)
    shorter = engine_config(Path(), kv_cache_memory_bytes=15 * ONE_BLOCK, max_model_len=240)
    assert make_plan(shorter, shape, CPU, FLOAT32).num_blocks == 15


def test_a_model_is_not_stretched(shape: ModelShape) -> None:
    with pytest.raises(ModelError, match="--max-model-len 257 is more than the 256 tokens"):
        make_plan(engine_config(Path(), max_model_len=257), shape, CPU, FLOAT32)


def test_a_default_cache_leaves_most_memory_free(shape: ModelShape) -> None:
    plan = make_plan(engine_config(Path(), kv_cache_memory_bytes=None), shape, CPU, FLOAT32)
    assert 16 <= plan.num_blocks <= 4 * 2**30 // ONE_BLOCK


@pytest.mark.parametrize(
    ("asked", "native", "packs", "expected"),
    [
        ("auto", False, False, ("float32", torch.float32, torch.float32, False)),
        ("auto", False, True, ("bfloat16", torch.float32, torch.bfloat16, True)),
        ("auto", True, True, ("bfloat16", torch.bfloat16, torch.bfloat16, False)),
        ("bfloat16", False, True, ("bfloat16", torch.float32, torch.bfloat16, True)),
        ("bfloat16", False, False, ("bfloat16", torch.float32, torch.bfloat16, False)),
        ("float16", False, True, ("float16", torch.float32, torch.float32, True)),
        ("float32", True, True, ("float32", torch.float32, torch.float32, False)),
    ],
)
def test_types_on_cpus_with_and_without_sixteen_bit_products(
    monkeypatch: pytest.MonkeyPatch,
    asked: DType,
    native: bool,
    packs: bool,
    expected: tuple[str, torch.dtype, torch.dtype, bool],
) -> None:
    monkeypatch.setattr(precision_module, "_cpu_multiplies", lambda dtype: native)
    monkeypatch.setattr(precision_module, "can_pack_half", lambda: packs)
    chosen = choose_precision(asked, "bfloat16", CPU)
    assert (chosen.name, chosen.compute, chosen.cache, chosen.packed) == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there() -> None:
    assert choose_device("auto") == CPU
    with pytest.raises(ModelError, match="--device cuda: torch sees no CUDA device"):
        choose_device("cuda")
