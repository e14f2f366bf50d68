"""Tables of what slots say of single tokens, made at random."""

import torch

from engine.kernels.logit_rules import RuleTables

SLOTS, BIASES, WORDS, BEFORE = 6, 300, 20, 32
HISTORY = 50


def some_tables(vocab: int, device: torch.device) -> RuleTables:
    """Every slot asks for something else; what lies behind the counts is poison."""
    words = -(-vocab // 32)
    line = torch.full((SLOTS, 2 * words + 2 * BIASES + WORDS * (2 + BEFORE)), 10**9, dtype=torch.int32)
    parts = line.split([words, words, BIASES, BIASES, WORDS, WORDS, WORDS * BEFORE], 1)
    for mask in parts[:2]:
        mask.copy_(torch.randint(-(2**31), 2**31, (SLOTS, words)))
    num_biases, num_words = torch.tensor([0, 3, BIASES, 257, 1, 0]), torch.tensor([WORDS, 0, 1, 17, 0, 0])
    for slot in range(SLOTS):
        some = int(num_biases[slot])
        parts[2][slot, :some] = torch.randperm(vocab)[:some]
        parts[3].view(torch.float32)[slot, :some] = torch.randn(some) * 10
        some = int(num_words[slot])
        parts[4][slot, :some] = torch.randint(vocab, (some,))
        parts[5][slot, :some] = torch.randint(4, (some,))
        parts[6].view(SLOTS, WORDS, BEFORE)[slot, :some] = torch.randint(2, (some, BEFORE))
    line = line.to(device)
    parts = line.split([words, words, BIASES, BIASES, WORDS, WORDS, WORDS * BEFORE], 1)
    numbers = torch.tensor([[4] * SLOTS, [0, 12, 9, 0, 10, 0], [0, 1, 1, 0, 0, 0]])
    prompt_lens, min_ends, limited, num_biases, num_words = (
        row.int().to(device) for row in (*numbers, num_biases, num_words)
    )
    return RuleTables(
        prompt_lens=prompt_lens,
        min_ends=min_ends,
        limited=limited,
        num_biases=num_biases,
        num_words=num_words,
        allowed=parts[0],
        stops=parts[1],
        bias_ids=parts[2],
        bias_values=parts[3].view(torch.float32),
        word_lasts=parts[4],
        word_counts=parts[5],
        word_befores=parts[6],
    )
