from pathlib import Path
from typing import Any

import pytest

from frontend.model_files.errors import ModelFilesError
from frontend.model_files.gguf_config import build_config
from protocol.gguf_header import GGUFError, read_header
from tests.helpers.gguf_bytes import Tensor, gguf

LLAMA: dict[str, object] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.context_length": 4096,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 96,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 500000.0,
    "tokenizer.ggml.bos_token_id": 1,
    "tokenizer.ggml.eos_token_id": 2,
}
EMBEDDING = Tensor(name="token_embd.weight", dimensions=[64, 10])
QUERY = Tensor(name="blk.0.attn_q.weight", dimensions=[64, 64], type_id=1)


def config(tmp_path: Path, metadata: dict[str, object], *extra: Tensor, data: bytes = b"") -> dict[str, Any]:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf(metadata, [EMBEDDING, QUERY, *extra], data=data or b"\0" * 64 * 64 * 4))
    return build_config(read_header(path))


def for_architecture(name: str) -> dict[str, object]:
    return {key.replace("llama.", f"{name}."): value for key, value in LLAMA.items()} | {"general.architecture": name}


def test_a_llama_has_hugging_faces_keys(tmp_path: Path) -> None:
    assert config(tmp_path, LLAMA) == {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rms_norm_eps": 1e-5,
        "vocab_size": 10,
        "max_position_embeddings": 4096,
        "rope_theta": 500000.0,
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
    }


@pytest.mark.parametrize(("name", "class_name"), [("qwen2", "Qwen2ForCausalLM"), ("qwen3", "Qwen3ForCausalLM")])
def test_qwen_is_known(name: str, class_name: str, tmp_path: Path) -> None:
    assert config(tmp_path, for_architecture(name))["architectures"] == [class_name]


def test_heads_may_be_wider_than_their_share(tmp_path: Path) -> None:
    sizes = {"qwen3.attention.key_length": 32, "qwen3.attention.value_length": 32}
    assert config(tmp_path, for_architecture("qwen3") | sizes)["head_dim"] == 32


def test_an_output_matrix_and_biases_are_seen_in_the_tensor_table(tmp_path: Path) -> None:
    extra = [
        Tensor(name="output.weight", dimensions=[64, 10]),
        Tensor(name="blk.0.attn_q.bias", dimensions=[64]),
        Tensor(name="blk.0.ffn_up.bias", dimensions=[96]),
    ]
    found = config(tmp_path, LLAMA, *extra)
    assert not found["tie_word_embeddings"]
    assert found["attention_bias"]
    assert found["mlp_bias"]


def test_every_token_that_ends_a_turn_is_an_eos(tmp_path: Path) -> None:
    ends = {"tokenizer.ggml.eot_token_id": 5, "tokenizer.ggml.eom_token_id": 2}
    assert config(tmp_path, LLAMA | ends)["eos_token_id"] == [2, 5]


def test_a_sliding_window_makes_it_a_mistral(tmp_path: Path) -> None:
    found = config(tmp_path, LLAMA | {"llama.attention.sliding_window": 1024})
    assert (found["model_type"], found["sliding_window"]) == ("mistral", 1024)


def test_linear_and_yarn_scaling(tmp_path: Path) -> None:
    linear = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    assert config(tmp_path, LLAMA | linear)["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}
    yarn = {
        "llama.rope.scaling.type": "yarn",
        "llama.rope.scaling.factor": 4.0,
        "llama.rope.scaling.original_context_length": 1024,
    }
    expected = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}
    assert config(tmp_path, LLAMA | yarn)["rope_scaling"] == expected


def test_a_table_of_divisors_is_left_to_the_engine(tmp_path: Path) -> None:
    """It applies the table itself; a scaling in config.json would come on top."""
    assert config(tmp_path, LLAMA, Tensor(name="rope_freqs.weight", dimensions=[8]))["rope_scaling"] is None


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "architecture": ({"general.architecture": "gemma"}, "architecture 'gemma' is not supported"),
    "experts": ({"llama.expert_count": 8}, "mixtures of experts"),
    "no layers": ({"llama.block_count": 0}, "block_count must be at least 1"),
    "partial rotation": ({"llama.rope.dimension_count": 8}, "rope.dimension_count is 8, but heads have 16"),
    "scaling": ({"llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": 2.0}, "RoPE scaling 'longrope'"),
    "heads by layer": ({"llama.attention.head_count_kv": [2, 4]}, "head_count_kv must be of type int"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_supported_is_refused_by_name(case: str, tmp_path: Path) -> None:
    change, reason = REFUSED[case]
    with pytest.raises((ModelFilesError, GGUFError), match=reason):
        config(tmp_path, LLAMA | change)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match=r"has no llama\.block_count"):
        config(tmp_path, {key: item for key, item in LLAMA.items() if key != "llama.block_count"})


def test_a_file_without_embeddings_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf(LLAMA))
    with pytest.raises(ModelFilesError, match=r"no tensor token_embd\.weight"):
        build_config(read_header(path))
