"""How a row chooses its tokens, as the engine sees it: ids and numbers; stop strings stay in the API server."""

import math
from collections.abc import Iterable
from typing import Annotated

import msgspec

from protocol.errors import InvalidField

MAX_STOP_TOKEN_IDS = 128
MAX_BAD_WORDS = 128
MAX_BAD_WORD_TOKENS = 32
MAX_LOGIT_BIAS = 1024

# The upper end is msgpack's own: it has no larger integer, and msgspec refuses a bound that does not fit in an int64.
UInt64 = Annotated[int, msgspec.Meta(ge=0)]


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Sampling parameters of one `Submit`. Choice c of it draws with seed + c (mod 2**64)."""

    seed: UInt64
    max_tokens: int
    min_tokens: int = 0  # before that many output tokens neither an eos nor a stop id can be drawn
    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # 0 keeps all
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None  # None: none; 0: the drawn token's; k: and those of the k most likely
    logit_bias: dict[int, float] = {}
    allowed_token_ids: tuple[int, ...] | None = None
    bad_words: tuple[tuple[int, ...], ...] = ()


def check_sampling(sampling: Sampling, *, vocab_size: int, max_logprobs: int) -> None:
    """Raise `InvalidField` at the first parameter out of bounds. Both ends call it: ids index the logits' width."""
    s = sampling
    _between("temperature", s.temperature, 0.0, 100.0)
    _between("top_p", s.top_p, 0.0, 1.0)
    if s.top_p == 0.0:
        raise InvalidField("top_p", "top_p must be greater than 0 and at most 1")
    _between("min_p", s.min_p, 0.0, 1.0)
    _between("presence_penalty", s.presence_penalty, -2.0, 2.0)
    _between("frequency_penalty", s.frequency_penalty, -2.0, 2.0)
    if not (math.isfinite(s.repetition_penalty) and 0.0 < s.repetition_penalty <= 100.0):
        raise InvalidField("repetition_penalty", "repetition_penalty must be greater than 0 and at most 100")
    _between("top_k", s.top_k, 0, 2**31 - 1)
    _between("max_tokens", s.max_tokens, 1, 2**31 - 1)
    _between("min_tokens", s.min_tokens, 0, s.max_tokens)
    if s.logprobs is not None:
        _between("logprobs", s.logprobs, 0, min(max_logprobs, vocab_size))
    _ids("stop_token_ids", s.stop_token_ids, vocab_size, MAX_STOP_TOKEN_IDS)
    _ids("logit_bias", s.logit_bias, vocab_size, MAX_LOGIT_BIAS)
    for bias in s.logit_bias.values():
        _between("logit_bias", bias, -100.0, 100.0)
    if s.allowed_token_ids is not None:
        if not s.allowed_token_ids:
            raise InvalidField("allowed_token_ids", "allowed_token_ids must name at least one token id")
        _ids("allowed_token_ids", s.allowed_token_ids, vocab_size, vocab_size)
    if len(s.bad_words) > MAX_BAD_WORDS:
        raise InvalidField("bad_words", f"bad_words holds {len(s.bad_words)} sequences; the limit is {MAX_BAD_WORDS}")
    for word in s.bad_words:
        if not word:
            raise InvalidField("bad_words", "bad_words must not hold an empty sequence")
        _ids("bad_words", word, vocab_size, MAX_BAD_WORD_TOKENS)


def _between(field: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:  # also true of NaN
        raise InvalidField(field, f"{field} must be between {low:g} and {high:g}, not {value:g}")


def _ids(field: str, ids: Iterable[int], vocab_size: int, limit: int) -> None:
    listed = list(ids)
    if len(listed) > limit:
        raise InvalidField(field, f"{field} holds {len(listed)} token ids; the limit is {limit}")
    for token in listed:
        if not 0 <= token < vocab_size:
            raise InvalidField(field, f"{field}: token id {token} is not between 0 and {vocab_size - 1}")
