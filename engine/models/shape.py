"""What config.json says about a model, checked: the sizes that everything else is built from. Knows no torch.

What we cannot compute exactly is refused here by name, so that no model is ever served with a part of it ignored.
"""

from dataclasses import dataclass
from pathlib import Path

from engine.models.architectures import ARCHITECTURES, Architecture
from engine.models.config_json import Fields, ModelError
from engine.models.rope_scaling import RopeShape, read_rope

__all__ = ["ModelError", "ModelShape", "read_shape"]

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope: RopeShape
    norm_eps: float
    tied_embeddings: bool  # the output matrix is the embedding
    qkv_bias: bool
    output_bias: bool  # of the attention's output projection
    qk_norm: bool  # RMSNorm over each head of q and k before RoPE
    sliding_window: int | None  # a token sees itself and the window - 1 tokens before it, in every layer
    max_position_embeddings: int
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    dtype: str  # that the weights were trained in


def read_shape(config_dir: str | Path) -> ModelShape:
    """The shape of the model in a folder; `ModelError` names the first thing that is missing, wrong or unsupported."""
    folder = Path(config_dir)
    config = Fields.read(folder / "config.json")
    name, architecture = _architecture(config)
    _refuse_unsupported(config)
    hidden, heads = config.size("hidden_size"), config.size("num_attention_heads")
    kv_heads = config.size("num_key_value_heads", heads)
    if heads % kv_heads:
        raise ModelError(f"{config.place}: {heads} attention heads cannot share {kv_heads} key-value heads evenly")
    attention_bias = config.flag("attention_bias", default=False)
    if attention_bias and not architecture.attention_bias_field:
        raise ModelError(f"{config.place}: attention_bias is not a setting of {name}")
    return ModelShape(
        architecture=name,
        vocab_size=config.size("vocab_size"),
        hidden_size=hidden,
        intermediate_size=config.size("intermediate_size"),
        num_layers=config.size("num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=_head_dim(config, hidden, heads),
        rope=read_rope(config),
        norm_eps=config.number("rms_norm_eps", 1e-6),
        tied_embeddings=config.flag("tie_word_embeddings", default=False),
        qkv_bias=architecture.qkv_bias or attention_bias,
        output_bias=attention_bias,
        qk_norm=architecture.qk_norm,
        sliding_window=_sliding_window(config, architecture),
        max_position_embeddings=config.size("max_position_embeddings", 2048),
        bos_token_id=next(iter(config.ids("bos_token_id")), None),
        eos_token_ids=_eos_ids(config, folder / "generation_config.json"),
        dtype=_dtype(config),
    )


def _architecture(config: Fields) -> tuple[str, Architecture]:
    names = config.texts("architectures")
    for name in names:
        if name in ARCHITECTURES:
            return name, ARCHITECTURES[name]
    known = ", ".join(sorted(ARCHITECTURES))
    if not names:
        raise ModelError(f"{config.place} names no architectures; known are {known}")
    raise ModelError(f"{config.place}: architecture {', '.join(names)} is not supported; known are {known}")


def _refuse_unsupported(config: Fields) -> None:
    """Settings that would change the result and that we do not compute."""
    activation = config.text("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise ModelError(f"{config.place}: hidden_act {activation!r} is not supported; silu is")
    if config.flag("mlp_bias", default=False):
        raise ModelError(f"{config.place}: mlp_bias is not supported")
    if "quantization_config" in config:
        method = config.inner("quantization_config").text("quant_method", "unnamed")
        raise ModelError(f"{config.place}: quantization_config ({method}) is not supported; use unquantized weights")
    for key in ("num_experts", "num_local_experts"):
        if key in config:
            raise ModelError(f"{config.place}: {key} is set, and mixtures of experts are not supported")


def _head_dim(config: Fields, hidden: int, heads: int) -> int:
    if "head_dim" not in config and hidden % heads:
        raise ModelError(
            f"{config.place}: hidden_size {hidden} is no multiple of {heads} heads, and head_dim is missing"
        )
    head_dim = config.size("head_dim", max(1, hidden // heads))
    if head_dim % 2:
        raise ModelError(f"{config.place}: head_dim {head_dim} is odd, and RoPE rotates pairs")
    return head_dim


def _sliding_window(config: Fields, architecture: Architecture) -> int | None:
    """The window of all layers, or None. A window that only some layers have is refused unless it can never matter."""
    if "sliding_window" not in config or not architecture.sliding_window_field:
        return None
    if architecture.sliding_window_switch and not config.flag("use_sliding_window", default=False):
        return None
    window = config.size("sliding_window")
    if window >= config.size("max_position_embeddings", 2048):
        return None
    first = _first_window_layer(config) if architecture.sliding_window_switch else 0
    if 0 < first < config.size("num_hidden_layers"):
        raise ModelError(
            f"{config.place}: a sliding window that starts at layer {first} (max_window_layers) is not supported"
        )
    return window if first == 0 else None


def _first_window_layer(config: Fields) -> int:
    value = config.find("max_window_layers")
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise config.error("max_window_layers", "a whole number")
    return value


def _eos_ids(config: Fields, generation_path: Path) -> tuple[int, ...]:
    """Those of generation_config.json first: chat models list there the ids that end a turn."""
    ids = config.ids("eos_token_id")
    if generation_path.exists():
        ids = Fields.read(generation_path).ids("eos_token_id") + ids
    return tuple(dict.fromkeys(ids))


def _dtype(config: Fields) -> str:
    name = config.text("dtype", config.text("torch_dtype", "float32"))
    if name not in DTYPES:
        raise ModelError(f"{config.place}: dtype {name!r} is not supported; known are {', '.join(DTYPES)}")
    return name
