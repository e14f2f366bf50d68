"""A small SentencePiece-like vocabulary with byte fallback, as GGUF metadata, and an independent tokenizer of it."""

from functools import lru_cache

import tokenizers
from tokenizers import models, trainers

from tests.helpers.corpus import TEXTS

SPACE = "\u2581"
FIRST_PIECE = 3 + 256


@lru_cache(maxsize=1)
def pieces() -> tuple[str, ...]:
    """Merged pieces in the order in which they were learned, then single characters."""
    learner = tokenizers.Tokenizer(models.BPE())
    texts = [SPACE + text.replace(" ", SPACE) for text in TEXTS[:8]] * 3
    learner.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, show_progress=False))
    learned = sorted(learner.get_vocab().items(), key=lambda item: item[1])
    return (*(token for token, _ in learned if len(token) > 1), *(token for token, _ in learned if len(token) == 1))


def metadata() -> dict[str, object]:
    """Laid out like Llama 2's: unknown, bos, eos, the bytes, then pieces with ever lower scores; and a chat marker."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens = ["<unk>", "<s>", "</s>", *bytes_, *pieces(), "<|end|>", "<tool>"]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [2, 3, 3, *[6] * 256, *[1] * len(pieces()), 3, 4],
        "tokenizer.ggml.scores": [0.0] * FIRST_PIECE + [-float(i) for i in range(len(pieces()))] + [0.0, 0.0],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def reference_encode(text: str) -> list[int]:
    """SentencePiece's rule: join the neighbours that make the best piece, the leftmost first. No special tokens."""
    rank = {piece: i for i, piece in enumerate(pieces())}
    symbols = list(SPACE + text.replace(" ", SPACE)) if text else []
    while True:
        joined = [(rank[a + b], i) for i, (a, b) in enumerate(zip(symbols, symbols[1:], strict=False)) if a + b in rank]
        if not joined:
            break
        _, at = min(joined)
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    ids: list[int] = []
    for symbol in symbols:
        ids += [FIRST_PIECE + rank[symbol]] if symbol in rank else [3 + byte for byte in symbol.encode()]
    return ids
