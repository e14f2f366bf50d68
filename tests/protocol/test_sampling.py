"""Every sampling parameter out of bounds is named, with its limit; everything within is let through."""

import math
from typing import Any

import pytest
from msgspec.structs import replace

from protocol.errors import InvalidField
from protocol.sampling import Sampling, check_sampling

GOOD = Sampling(seed=0, max_tokens=16)


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        ("temperature", -0.1, "between 0 and 100"),
        ("temperature", math.nan, "between 0 and 100"),
        ("temperature", math.inf, "between 0 and 100"),
        ("top_p", 0.0, "greater than 0"),
        ("top_p", 1.1, "between 0 and 1"),
        ("min_p", -0.5, "between 0 and 1"),
        ("top_k", -1, "between 0"),
        ("presence_penalty", 2.5, "between -2 and 2"),
        ("frequency_penalty", -2.5, "between -2 and 2"),
        ("repetition_penalty", 0.0, "greater than 0"),
        ("repetition_penalty", math.nan, "greater than 0"),
        ("max_tokens", 0, "between 1"),
        ("min_tokens", 17, "between 0 and 16"),
        ("logprobs", 6, "between 0 and 5"),
        ("stop_token_ids", (100,), "between 0 and 99"),
        ("stop_token_ids", tuple(range(99)) * 2, "limit is 128"),
        ("logit_bias", {-1: 0.0}, "between 0 and 99"),
        ("logit_bias", {1: 101.0}, "between -100 and 100"),
        ("allowed_token_ids", (), "at least one"),
        ("allowed_token_ids", (100,), "between 0 and 99"),
        ("bad_words", ((),), "empty"),
        ("bad_words", ((1, 100),), "between 0 and 99"),
        ("bad_words", ((1,),) * 129, "limit is 128"),
    ],
)
def test_what_is_out_of_bounds_is_named_with_its_limit(field: str, value: Any, limit: str) -> None:
    with pytest.raises(InvalidField, match=limit) as caught:
        check_sampling(replace(GOOD, **{field: value}), vocab_size=100, max_logprobs=5)
    assert caught.value.field == field
    assert field in caught.value.message


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.0},
        {"temperature": 100.0},
        {"top_p": 1.0},
        {"top_k": 2**31 - 1},
        {"min_tokens": 16},
        {"logprobs": 5},
        {"stop_token_ids": (0, 99)},
        {"logit_bias": {0: -100.0, 99: 100.0}},
        {"allowed_token_ids": (99,)},
        {"bad_words": ((0,), (98, 99))},
    ],
)
def test_the_limits_themselves_are_allowed(change: dict[str, Any]) -> None:
    check_sampling(replace(GOOD, **change), vocab_size=100, max_logprobs=5)
