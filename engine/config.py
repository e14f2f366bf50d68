"""What the engine core decided once it had seen the model and the device."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlan:
    """The sizes that scheduler, KV cache and runner share. All of them are final before the first step."""

    device: str  # "cpu", "cuda:0"
    dtype: str  # "float32", "bfloat16", "float16"
    max_model_len: int
    block_size: int
    num_blocks: int  # KV-cache blocks, all of them usable
    max_num_seqs: int  # slots
    max_num_batched_tokens: int  # the token budget of one step
    vocab_size: int  # the width of the logits
    max_logprobs: int = 20  # alternatives that a row may ask for beside a token's log-probability

    @property
    def max_blocks_per_row(self) -> int:
        return -(-self.max_model_len // self.block_size)
