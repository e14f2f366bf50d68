"""What config.json may say, and what is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.models.rope_scaling import RopeShape
from engine.models.shape import ModelError, ModelShape, read_shape

BASE: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "eos_token_id": 2,
}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def shape_of(folder: Path, **changes: Any) -> ModelShape:
    values = {key: value for key, value in (BASE | changes).items() if value != "absent"}
    (folder / "config.json").write_text(json.dumps(values))
    return read_shape(folder)


def test_defaults(tmp_path: Path) -> None:
    shape = shape_of(tmp_path)
    assert (shape.num_kv_heads, shape.head_dim, shape.norm_eps, shape.dtype) == (4, 16, 1e-6, "float32")
    assert shape.rope == RopeShape(theta=10_000.0)
    assert not (shape.tied_embeddings or shape.qkv_bias or shape.output_bias or shape.qk_norm)


@pytest.mark.parametrize(
    ("changes", "rope"),
    [
        ({"rope_theta": 5e5}, RopeShape(theta=5e5)),
        ({"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, RopeShape(theta=5e5)),
        ({"rope_scaling": None}, RopeShape(theta=1e4)),
        ({"rope_scaling": {"type": "linear", "factor": 2}}, RopeShape(theta=1e4, kind="linear", factor=2.0)),
        (
            {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
            RopeShape(
                theta=5e5,
                kind="llama3",
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_positions=8192,
            ),
        ),
    ],
)
def test_rope_in_both_spellings(tmp_path: Path, changes: dict[str, Any], rope: RopeShape) -> None:
    assert shape_of(tmp_path, **changes).rope == rope


@pytest.mark.parametrize(
    ("changes", "qkv_bias", "output_bias", "qk_norm", "window"),
    [
        ({"attention_bias": True}, True, True, False, None),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": 32}, False, False, False, 32),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": None}, False, False, False, None),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": 512}, False, False, False, None),
        ({"architectures": ["Qwen2ForCausalLM"], "sliding_window": 32}, True, False, False, None),
        (
            {
                "architectures": ["Qwen2ForCausalLM"],
                "sliding_window": 32,
                "use_sliding_window": True,
                "max_window_layers": 2,
            },
            True,
            False,
            False,
            None,
        ),
        ({"architectures": ["Qwen3ForCausalLM"], "attention_bias": False}, False, False, True, None),
    ],
)
def test_what_architectures_differ_in(
    tmp_path: Path, changes: dict[str, Any], qkv_bias: bool, output_bias: bool, qk_norm: bool, window: int | None
) -> None:
    shape = shape_of(tmp_path, **changes)
    assert (shape.qkv_bias, shape.output_bias, shape.qk_norm) == (qkv_bias, output_bias, qk_norm)
    assert shape.sliding_window == window


def test_eos_ids_of_both_files(tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [7, 5]}')
    assert shape_of(tmp_path, eos_token_id=[2, 5]).eos_token_ids == (7, 5, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["GemmaForCausalLM"]}, "GemmaForCausalLM is not supported; known are LlamaForCausalLM, Mis"),
        ({"architectures": "absent"}, "names no architectures"),
        ({"hidden_size": "absent"}, "lacks hidden_size"),
        ({"vocab_size": "many"}, "vocab_size must be a whole number of at least 1, not 'many'"),
        ({"vocab_size": True}, "vocab_size must be a whole number"),
        ({"num_key_value_heads": 3}, "4 attention heads cannot share 3"),
        ({"num_attention_heads": 5}, "hidden_size 64 is no multiple of 5 heads"),
        ({"head_dim": 15}, "head_dim 15 is odd"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
        ({"mlp_bias": True}, "mlp_bias is not supported"),
        ({"quantization_config": {"quant_method": "awq"}}, r"quantization_config \(awq\) is not supported"),
        ({"num_local_experts": 8}, "num_local_experts is set, and mixtures of experts are not supported"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "RoPE scaling 'yarn' is not supported"),
        ({"rope_scaling": {"rope_type": "llama3"}}, "lacks low_freq_factor"),
        ({"rope_scaling": {"type": "linear", "factor": -1}}, "factor must be a number greater than 0"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor other than 1"),
        ({"eos_token_id": "</s>"}, "eos_token_id must be a token id"),
        ({"dtype": "float8"}, "dtype 'float8' is not supported"),
        ({"architectures": ["MistralForCausalLM"], "attention_bias": True}, "attention_bias is not a setting of Mistr"),
        (
            {
                "architectures": ["Qwen3ForCausalLM"],
                "sliding_window": 32,
                "use_sliding_window": True,
                "max_window_layers": 1,
            },
            "starts at layer 1",
        ),
    ],
)
def test_refused_by_name(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        shape_of(tmp_path, **changes)


@pytest.mark.parametrize(("content", "message"), [("{", "is not JSON"), ("[]", "must hold a JSON object")])
def test_spoilt_files(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelError, match=message):
        read_shape(tmp_path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="config.json cannot be read: No such file"):
        read_shape(tmp_path)
