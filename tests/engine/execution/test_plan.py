"""Sizes and types: what is decided, and the sentence when something does not fit."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config import EnginePlan
from engine.execution import precision as precision_module
from engine.execution.device_memory import container_limit, wait_until_free
from engine.execution.memory_plan import GIB, DeviceMemory, MemoryPlan
from engine.execution.plan import make_plan
from engine.execution.precision import Precision, choose_device, choose_precision
from engine.models.shape import ModelError, ModelShape, read_shape
from engine.weights.safetensors_folder import SafetensorsFolder
from protocol.launch import DType
from tests.helpers.drive_runner import engine_config, start
from tests.helpers.small_models import save_model

CPU = torch.device("cpu")
FLOAT32 = Precision(name="float32", rounded=torch.float32, compute=torch.float32, cache=torch.float32)
BFLOAT16 = Precision(name="bfloat16", rounded=torch.bfloat16, compute=torch.bfloat16, cache=torch.bfloat16)
MACHINE = DeviceMemory(total=64 * GIB, free=32 * GIB)
H100 = DeviceMemory(total=79 * GIB, free=78 * GIB)
LARGE = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
}
ONE_BLOCK = 3 * 16 * 2 * 2 * 16 * 4  # layers, tokens, k and v, kv heads, head_dim, bytes


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    folder = tmp_path_factory.mktemp("model")
    save_model("llama", folder)
    return read_shape(folder)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    """Llama-3.1-8B."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "config.json").write_text(json.dumps(LARGE))
    return read_shape(folder)


def cpu_plan(shape: ModelShape, memory: DeviceMemory = MACHINE, **settings: Any) -> tuple[EnginePlan, MemoryPlan]:
    return make_plan(engine_config(Path(), **settings), shape, CPU, FLOAT32, memory)


def gpu_plan(shape: ModelShape, **settings: Any) -> tuple[EnginePlan, MemoryPlan]:
    config = engine_config(Path(), **({"max_num_seqs": 256, "kv_cache_memory_bytes": None} | settings))
    return make_plan(config, shape, torch.device("cuda", 0), BFLOAT16, H100)


def test_the_cache_takes_what_it_was_given(shape: ModelShape) -> None:
    plan, memory = cpu_plan(shape, kv_cache_memory_bytes=20 * ONE_BLOCK + 7)
    assert (plan.num_blocks, plan.max_model_len, plan.max_blocks_per_row) == (20, 256, 16)
    assert (plan.device, plan.dtype, plan.vocab_size) == ("cpu", "float32", 199)
    assert (memory.kv_cache, memory.num_cache_tokens) == (20 * ONE_BLOCK, 320)


def test_a_cache_too_small_for_one_request_names_the_flags(shape: ModelShape) -> None:
    with pytest.raises(ModelError, match=r"holds 240 tokens, fewer than one request of 256; lower --max-model-len or"):
        cpu_plan(shape, kv_cache_memory_bytes=15 * ONE_BLOCK)
    assert cpu_plan(shape, kv_cache_memory_bytes=15 * ONE_BLOCK, max_model_len=240)[0].num_blocks == 15


def test_a_model_is_not_stretched(shape: ModelShape) -> None:
    with pytest.raises(ModelError, match="--max-model-len 257 is more than the 256 tokens"):
        cpu_plan(shape, max_model_len=257)


def test_a_default_cache_leaves_most_memory_free(shape: ModelShape) -> None:
    plan, memory = cpu_plan(shape, DeviceMemory(total=2**30, free=2**26), kv_cache_memory_bytes=None)
    assert plan.num_blocks == (2**26 - memory.parts["weights"]) // 4 // ONE_BLOCK
    plan, _ = cpu_plan(shape, kv_cache_memory_bytes=None)
    assert plan.num_blocks == 4 * 2**30 // ONE_BLOCK


def test_a_machine_too_small_for_the_weights_is_told_before_they_are_read(large: ModelShape) -> None:
    with pytest.raises(ModelError, match=r"weights of 29.9 GiB and --kv-cache-memory-bytes 4194304 are more than 16.0"):
        cpu_plan(large, DeviceMemory(total=2**34, free=2**33))


def test_a_gpu_is_filled_up_to_its_utilization(large: ModelShape) -> None:
    plan, memory = gpu_plan(large)
    one_block = 32 * 16 * 2 * 8 * 128 * 2
    assert 0 <= memory.limit - memory.needed < one_block
    assert memory.limit == int(H100.total * 0.9)
    assert plan.num_blocks * one_block == memory.kv_cache
    assert memory.parts["weights"] == pytest.approx(16.06e9 + 2 * 131072 * 128 * 2, rel=1e-3)
    assert memory.line().startswith("memory plan of cuda:0: weights 15.0 GiB + ")
    assert memory.line().endswith("of 71.1 GiB (--gpu-memory-utilization 0.9 of 79.0 GiB)")


def test_a_cache_of_given_size_may_reach_beyond_the_utilization(large: ModelShape) -> None:
    plan, memory = gpu_plan(large, kv_cache_memory_bytes=58 * GIB)
    assert memory.kv_cache == 58 * GIB and H100.total * 0.9 < memory.needed <= memory.limit == H100.total
    assert plan.num_blocks == 58 * GIB // (32 * 16 * 2 * 8 * 128 * 2)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kv_cache_memory_bytes": 64 * GIB}, r"--kv-cache-memory-bytes 68719476736 are more than 79.0 GiB \(all of"),
        (
            {"gpu_memory_utilization": 0.2},
            r"cuda:0: weights of 15.0 GiB and .* GiB for steps leave nothing of 15.8 GiB",
        ),
        ({"gpu_memory_utilization": 0.3}, r"holds \d+ tokens, fewer than one request of 131072; lower --max-model-len"),
        ({"max_num_seqs": 131_072}, "lower --max-num-seqs, --max-num-batched-tokens, --max-model-len or choose"),
    ],
)
def test_asking_too_much_names_the_numbers_and_the_way_out(
    large: ModelShape, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ModelError, match=sentence):
        gpu_plan(large, **settings)


@pytest.mark.parametrize("name", ["llama", "llama tied", "llama with biases", "qwen2", "qwen3"])
def test_weights_are_counted_as_they_are_stored(name: str, tmp_path: Path) -> None:
    model = save_model(name, tmp_path)
    _, memory = cpu_plan(read_shape(tmp_path))
    assert memory.parts["weights"] == 4 * sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", ["max_num_seqs", "max_num_batched_tokens", "max_model_len"])
def test_what_grows_takes_its_room_from_the_cache(large: ModelShape, name: str) -> None:
    less, more = (gpu_plan(large, **{name: number})[1] for number in (512, 1024))
    assert less.kv_cache > more.kv_cache and less.limit == more.limit


@pytest.mark.parametrize(("text", "limit"), [("1073741824\n", GIB), ("max\n", None), (None, None)])
def test_a_container_may_have_less_than_the_machine(tmp_path: Path, text: str | None, limit: int | None) -> None:
    if text is not None:
        (tmp_path / "memory.max").write_text(text)
    assert container_limit([tmp_path / "memory.max"]) == limit


def test_memory_that_comes_back_is_waited_for(large: ModelShape) -> None:
    _, plan = gpu_plan(large)
    free = iter([0, plan.needed_free - 1, plan.needed_free])
    wait_until_free(plan, lambda: DeviceMemory(total=H100.total, free=next(free)), sleep=lambda _: None)
    assert next(free, None) is None


def test_memory_that_stays_away_is_named(large: ModelShape) -> None:
    _, plan = gpu_plan(large)
    with pytest.raises(
        ModelError, match=r"cuda:0 has 3.0 GiB free and stayed so for 0 s, but the memory plan needs 70"
    ):
        wait_until_free(plan, lambda: DeviceMemory(total=H100.total, free=3 * GIB), wait_s=0)


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


def test_what_does_not_fit_is_told_before_a_weight_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model("llama", tmp_path)
    monkeypatch.setattr(SafetensorsFolder, "read", lambda *_: pytest.fail("a weight was read"))
    with pytest.raises(ModelError, match="fewer than one request of 256"):
        start(engine_config(tmp_path, kv_cache_memory_bytes=ONE_BLOCK))


def test_the_plan_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_model("llama", tmp_path)
    with caplog.at_level("INFO", "headrace.engine"):
        start(engine_config(tmp_path, kv_cache_memory_bytes=20 * ONE_BLOCK))
    assert "memory plan of cpu: weights 0 MiB + KV cache for 320 tokens 0 MiB = 1 MiB of" in caplog.text


@pytest.mark.parametrize(
    ("changes", "on_cpu", "on_gpu"),
    [
        ({}, 2048, 8192),
        ({"max_num_batched_tokens": 300}, 300, 300),
        ({"max_num_seqs": 10_000}, 10_000, 10_000),
        ({"enable_chunked_prefill": False}, 20_000, 20_000),
    ],
)
def test_a_token_budget_that_nobody_asked_for_suits_the_device(
    large: ModelShape, changes: dict[str, Any], on_cpu: int, on_gpu: int
) -> None:
    asked = {"kv_cache_memory_bytes": 20 * GIB, "max_model_len": 20_000} | changes
    assert cpu_plan(large, **asked)[0].max_num_batched_tokens == on_cpu
    assert gpu_plan(large, **asked)[0].max_num_batched_tokens == on_gpu
