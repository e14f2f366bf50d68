"""The one table of a model's tensors: names as in Hugging Face checkpoints, and shapes. Knows no torch."""

from math import prod

from engine.models.shape import ModelShape

EMBEDDING = "model.embed_tokens.weight"
FINAL_NORM = "model.norm.weight"
OUTPUT = "lm_head.weight"
ROPE_DIVISORS = "rope_freqs.weight"  # GGUF's way to say llama3 scaling: each frequency is divided by one of these

Shapes = dict[str, tuple[int, ...]]


def expected_tensors(shape: ModelShape) -> Shapes:
    """Every tensor that the checkpoint must have."""
    table: Shapes = {EMBEDDING: (shape.vocab_size, shape.hidden_size), FINAL_NORM: (shape.hidden_size,)}
    if not shape.tied_embeddings:
        table[OUTPUT] = (shape.vocab_size, shape.hidden_size)
    layer = _layer_tensors(shape)
    for index in range(shape.num_layers):
        table.update({layer_tensor(index, name): dims for name, dims in layer.items()})
    return table


def optional_tensors(shape: ModelShape) -> Shapes:
    """Tensors that are used where the checkpoint has them."""
    return {ROPE_DIVISORS: (shape.head_dim // 2,)}


def num_parameters(shape: ModelShape) -> int:
    """Numbers in all the tensors that the checkpoint must have."""
    return sum(prod(dims) for dims in expected_tensors(shape).values())


def layer_tensor(index: int, name: str) -> str:
    return f"model.layers.{index}.{name}"


def may_be_ignored(name: str, shape: ModelShape) -> bool:
    """Tensors that some checkpoints hold although the config already says it all."""
    return name.endswith("rotary_emb.inv_freq") or (name == OUTPUT and shape.tied_embeddings)


def _layer_tensors(shape: ModelShape) -> Shapes:
    hidden, inner = shape.hidden_size, shape.intermediate_size
    q_rows, kv_rows = shape.num_heads * shape.head_dim, shape.num_kv_heads * shape.head_dim
    table: Shapes = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (q_rows, hidden),
        "self_attn.k_proj.weight": (kv_rows, hidden),
        "self_attn.v_proj.weight": (kv_rows, hidden),
        "self_attn.o_proj.weight": (hidden, q_rows),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    if shape.qkv_bias:
        table |= {f"self_attn.{part}_proj.bias": (kv_rows,) for part in "kv"}
        table["self_attn.q_proj.bias"] = (q_rows,)
    if shape.output_bias:
        table["self_attn.o_proj.bias"] = (hidden,)
    if shape.qk_norm:
        table |= {f"self_attn.{part}_norm.weight": (shape.head_dim,) for part in "qk"}
    return table
