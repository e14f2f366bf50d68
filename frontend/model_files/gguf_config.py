"""config.json and generation_config.json, with Hugging Face's keys, out of a GGUF file's metadata and tensor table."""

from dataclasses import dataclass
from typing import Any

from frontend.model_files.errors import ModelFilesError
from protocol.gguf_header import GGUFHeader, GGUFTensor

Json = dict[str, Any]

# general.architecture -> (model_type, architecture). Mistral's files call themselves llama.
_ARCHITECTURES = {
    "llama": ("llama", "LlamaForCausalLM"),
    "qwen2": ("qwen2", "Qwen2ForCausalLM"),
    "qwen3": ("qwen3", "Qwen3ForCausalLM"),
}
_DTYPES = {"F32": "float32", "F16": "float16"}  # all others, quantised ones too, have bfloat16's range
_EOS_KEYS = ("eos_token_id", "eot_token_id", "eom_token_id")


def build_config(header: GGUFHeader) -> Json:
    architecture = header.get("general.architecture", str)
    if architecture not in _ARCHITECTURES:
        raise ModelFilesError(
            f"{header.path}: architecture {architecture!r} is not supported; these are: {', '.join(_ARCHITECTURES)}"
        )
    model_type, class_name = _ARCHITECTURES[architecture]
    keys = _Keys(header, architecture)
    if (keys.find("expert_count", int) or 0) > 0:
        raise ModelFilesError(f"{header.path}: mixtures of experts are not supported")
    window = keys.find("attention.sliding_window", int)
    if window and architecture == "llama":
        model_type, class_name = "mistral", "MistralForCausalLM"
    return {
        "architectures": [class_name],
        "model_type": model_type,
        **_sizes(header, keys),
        **_rope(header, keys),
        **_biases(header),
        **({"sliding_window": window, "use_sliding_window": True} if window else {}),
        **token_ids(header),
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "torch_dtype": _DTYPES.get(_tensor(header, "blk.0.attn_q.weight").type_name, "bfloat16"),
    }


def token_ids(header: GGUFHeader) -> Json:
    """The ids of bos and of every token that ends an answer; also all that generation_config.json needs."""
    found = [header.find(f"tokenizer.ggml.{key}", int) for key in _EOS_KEYS]
    ends = list(dict.fromkeys(i for i in found if i is not None))
    eos = {"eos_token_id": ends[0] if len(ends) == 1 else ends} if ends else {}
    bos = header.find("tokenizer.ggml.bos_token_id", int)
    return {**eos, **({} if bos is None else {"bos_token_id": bos})}


@dataclass(frozen=True, slots=True)
class _Keys:
    """The metadata under the architecture's own prefix."""

    header: GGUFHeader
    prefix: str

    def count(self, key: str) -> int:
        value = self.header.get(f"{self.prefix}.{key}", int)
        if value < 1:
            raise ModelFilesError(f"{self.header.path}: {self.prefix}.{key} must be at least 1, not {value}")
        return value

    def find(self, key: str, kind: type[Any]) -> Any:
        return self.header.find(f"{self.prefix}.{key}", kind)

    def real(self, key: str) -> float | None:
        """A float32 as the shortest decimal that means it: 1e-05, not 9.999999747378752e-06."""
        value = self.find(key, float)
        return None if value is None else float(f"{value:.7g}")


def _sizes(header: GGUFHeader, keys: _Keys) -> Json:
    num_heads = keys.count("attention.head_count")
    hidden_size = keys.count("embedding_length")
    eps = keys.real("attention.layer_norm_rms_epsilon")
    if eps is None:
        raise ModelFilesError(f"{header.path}: the metadata has no {keys.prefix}.attention.layer_norm_rms_epsilon")
    return {
        "hidden_size": hidden_size,
        "intermediate_size": keys.count("feed_forward_length"),
        "num_hidden_layers": keys.count("block_count"),
        "num_attention_heads": num_heads,
        "num_key_value_heads": keys.find("attention.head_count_kv", int) or num_heads,
        "head_dim": _head_dim(header, keys, hidden_size // num_heads),
        "rms_norm_eps": eps,
        "vocab_size": _tensor(header, "token_embd.weight").shape[0],  # the logits' width; the metadata may be shorter
        "max_position_embeddings": keys.count("context_length"),
    }


def _head_dim(header: GGUFHeader, keys: _Keys, default: int) -> int:
    head_dim: int = keys.find("attention.key_length", int) or default
    for key in ("attention.value_length", "rope.dimension_count"):
        other = keys.find(key, int)
        if other not in (None, head_dim):
            raise ModelFilesError(
                f"{header.path}: {keys.prefix}.{key} is {other}, but heads have {head_dim} dimensions; "
                "other sizes than that of the keys are not supported"
            )
    return head_dim


def _biases(header: GGUFHeader) -> Json:
    attention, mlp = "blk.0.attn_q.bias" in header.tensors, "blk.0.ffn_up.bias" in header.tensors
    return {"attention_bias": attention, "mlp_bias": mlp}


def _rope(header: GGUFHeader, keys: _Keys) -> Json:
    theta = keys.real("rope.freq_base") or 10_000.0
    if "rope_freqs.weight" in header.tensors:
        # Llama 3.1 and later: the engine applies these divisors itself, so saying llama3 here would scale twice.
        return {"rope_theta": theta, "rope_scaling": None}
    kind = keys.find("rope.scaling.type", str) or "none"
    # Files of 2023 say the factor alone, and mean linear scaling.
    factor = keys.real("rope.scaling.factor") or keys.real("rope.scale_linear")
    if kind == "none" and factor in (None, 0.0, 1.0):
        return {"rope_theta": theta, "rope_scaling": None}
    if kind == "linear" or (kind == "none" and keys.find("rope.scaling.type", str) is None):
        return {"rope_theta": theta, "rope_scaling": {"rope_type": "linear", "factor": factor or 1.0}}
    if kind == "yarn" and factor is not None:
        original = keys.count("rope.scaling.original_context_length")
        scaling = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
        return {"rope_theta": theta, "rope_scaling": scaling}
    raise ModelFilesError(f"{header.path}: RoPE scaling {kind!r} with factor {factor} is not supported")


def _tensor(header: GGUFHeader, name: str) -> GGUFTensor:
    if name not in header.tensors:
        raise ModelFilesError(f"{header.path} has no tensor {name}, so it is not a whole model")
    return header.tensors[name]
