"""The demo model's values against transformers with the same weights, and a spoilt file."""

from pathlib import Path

import pytest
import torch
import transformers

from engine.models.shape import ModelError, read_shape
from engine.models.tensors import expected_tensors
from engine.weights.gguf_file import GGUFFile
from engine.weights.source import check_tensors
from protocol.launch import ModelFiles
from tests.helpers.drive_runner import engine_config, start
from tests.helpers.small_models import reference_logits

PROMPTS = ([1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198], [504, 3575], list(range(1000, 1060)))


def test_greedy_tokens_equal_those_of_transformers(demo_files: ModelFiles) -> None:
    config_dir, path = Path(demo_files.config_dir), Path(demo_files.weights)
    shape = read_shape(config_dir)
    source = GGUFFile(path, shape)
    check_tensors(source, shape)
    config = transformers.AutoConfig.from_pretrained(config_dir)
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    state = {name: torch.empty(dims) for name, dims in expected_tensors(shape).items()}
    for name, values in state.items():
        source.read(name, values)
    model.load_state_dict(state | {"lm_head.weight": state["model.embed_tokens.weight"]}, assign=True)
    model.model.rotary_emb = transformers.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    model.eval()  # type: ignore[no-untyped-call]

    driver = start(engine_config(config_dir, path, kv_cache_memory_bytes=2**29))
    rows = [driver.add(slot, prompt) for slot, prompt in enumerate(PROMPTS)]
    for prompt, outputs in zip(PROMPTS, driver.generate(rows, 8, chunk=16), strict=True):
        best = reference_logits(model, [*prompt, *outputs])[len(prompt) - 1 : -1].argmax(-1)
        assert best.tolist() == outputs


def test_bfloat16_weights_hardly_change_the_log_probabilities(demo_files: ModelFiles) -> None:
    logprobs = []
    for dtype in ("float32", "bfloat16"):
        config = engine_config(
            Path(demo_files.config_dir), Path(demo_files.weights), dtype=dtype, kv_cache_memory_bytes=2**29
        )
        driver = start(config)
        (part,) = driver.step([driver.add(0, PROMPTS[0])], prompt_logprobs=0).prompt_logprobs
        logprobs.append(torch.from_numpy(part.logprobs))
    difference = (logprobs[0] - logprobs[1]).abs().max()
    assert 0.0 < difference < 0.2


def test_truncated(demo_files: ModelFiles, tmp_path: Path) -> None:
    with Path(demo_files.weights).open("rb") as file:
        (tmp_path / "cut.gguf").write_bytes(file.read(30_000_000))
    with pytest.raises(ModelError, match="cut short"):
        GGUFFile(tmp_path / "cut.gguf", read_shape(demo_files.config_dir))


def test_another_models_config(demo_files: ModelFiles, tmp_path: Path) -> None:
    text = (Path(demo_files.config_dir) / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace("1536", "1600"))
    shape = read_shape(tmp_path)
    with pytest.raises(ModelError, match=r"has shape \[1536, 576\]; config.json asks for \[1600, 576\]"):
        check_tensors(GGUFFile(Path(demo_files.weights), shape), shape)
