"""The attention shapes of the models that are measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Heads:
    model: str
    num_heads: int
    num_kv_heads: int
    head_dim: int

    @property
    def kv_bytes(self) -> int:
        """Of one token in one layer, bfloat16."""
        return 2 * self.num_kv_heads * self.head_dim * 2


LLAMA_8B = Heads("8B", 32, 8, 128)
QWEN_06B = Heads("0.6B", 16, 8, 128)
SMOLLM = Heads("135M", 9, 3, 64)
ODD = Heads("odd", 20, 4, 80)
