"""What the GPU keeps of each slot's sampling, as names and widths: tables and memory plan are made from it. No torch.

numbers   [W, slots]  a line for each number that every row has
lists     [slots, L]  parts of fixed width side by side, of which a row uses as much as its numbers say
"""

import numpy as np

from engine.kernels.tuning import TOP_LOGITS
from protocol.sampling import MAX_BAD_WORD_TOKENS, MAX_BAD_WORDS, MAX_LOGIT_BIAS

FLOATS = ("temperature", "top_p", "min_p", "presence", "frequency", "repetition")
INTS = ("top_k", "prompt_len", "min_end", "limited", "num_biases", "num_words")
RECORD = np.dtype([("seed", np.uint64), *((name, np.float32) for name in FLOATS), *((name, np.int32) for name in INTS)])
RECORD_WIDTH = RECORD.itemsize // 4

BEFORE = MAX_BAD_WORD_TOKENS  # tokens that a bad word has room for beside its last one, a power of two
MAX_COPIES = 128  # rows that draw once more at a time: of 150,000 tokens each takes 1.2 MB

_RUN = 64  # of engine.kernels.sampling, which needs torch


def list_widths(vocab_size: int) -> dict[str, int]:
    """int32 numbers of each part."""
    mask = -(-vocab_size // 32)
    return {
        "allowed": mask,
        "stops": mask,
        "bias_ids": MAX_LOGIT_BIAS,
        "bias_values": MAX_LOGIT_BIAS,
        "word_lasts": MAX_BAD_WORDS,
        "word_counts": MAX_BAD_WORDS,
        "word_befores": MAX_BAD_WORDS * BEFORE,
    }


def sampler_bytes(*, max_num_seqs: int, vocab_size: int, max_logprobs: int) -> int:
    """What a `GpuSampler` takes for good."""
    slot = RECORD_WIDTH + sum(list_widths(vocab_size).values())
    changed = min(max_num_seqs, MAX_COPIES) * vocab_size * 2  # copies of the logits, and counts
    packed = max_num_seqs * (2 + 2 * max_logprobs)
    most_top = max(size for size, _ in TOP_LOGITS)
    scratch = max_num_seqs * (3 * -(-vocab_size // _RUN) + most_top + 1)
    return (max_num_seqs * slot + changed + packed + scratch) * 4
