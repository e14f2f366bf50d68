"""The architectures by the names config.json gives them, and in what they differ. All are one dense decoder.

Llama is the base. Mistral adds a sliding window, Qwen2 biases on q, k and v, Qwen3 an RMSNorm on each head of q and k.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    qkv_bias: bool = False  # always, whatever config.json says
    qk_norm: bool = False
    attention_bias_field: bool = False  # config.json's attention_bias puts a bias on q, k, v and the output
    sliding_window_field: bool = False  # config.json's sliding_window counts
    sliding_window_switch: bool = False  # ... and only with use_sliding_window, from layer max_window_layers on


ARCHITECTURES: dict[str, Architecture] = {
    "LlamaForCausalLM": Architecture(attention_bias_field=True),
    "MistralForCausalLM": Architecture(sliding_window_field=True),
    "Qwen2ForCausalLM": Architecture(qkv_bias=True, sliding_window_field=True, sliding_window_switch=True),
    "Qwen3ForCausalLM": Architecture(
        qk_norm=True, attention_bias_field=True, sliding_window_field=True, sliding_window_switch=True
    ),
}
