"""Whatever a peer submits becomes rows or a refusal: never an exception of the engine, never a wrong block table."""

import msgspec
import pytest

from engine.intake import Refusal
from protocol.messages import Submit
from tests.helpers.scheduler_bench import Bench, expected, submit

LARGEST = 2**31 - 1
PROMPT = list(range(20))


@pytest.mark.parametrize(
    "sampling",
    [
        {"max_tokens": LARGEST, "min_tokens": LARGEST},
        {"max_tokens": LARGEST, "top_k": LARGEST},
        {"seed": 2**64 - 1, "num_choices": 3},
        {"priority": -(2**63)},
        {"priority": 2**64 - 1},
        {"stop_token_ids": tuple(range(128))},
        {"logit_bias": {0: -100.0, 999: 100.0}},
    ],
)
def test_extreme_values_run(sampling: dict[str, object]) -> None:
    bench = Bench(policy="priority")
    bench.submit(submit(2**62, [1, 2, 3], **sampling))  # type: ignore[arg-type]  # by keyword
    bench.run()
    assert bench.scheduler.pool.num_held == 0


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (submit(0, [1], max_tokens=LARGEST + 1), "max_tokens"),
        (submit(0, [1], max_tokens=2, min_tokens=3), "min_tokens"),
        (submit(0, [1], top_k=2**63), "top_k"),
        (submit(0, [1], logit_bias={-1: 0.0}), "logit_bias"),
        (submit(0, [1], logit_bias={2**63: 0.0}), "logit_bias"),
        (submit(0, [1], logit_bias={1: float("nan")}), "logit_bias"),
        (submit(0, [1], temperature=float("inf")), "temperature"),
        (submit(0, [1], bad_words=((1, 1000),)), "bad_words"),
        (submit(0, [1], allowed_token_ids=()), "allowed_token_ids"),
        (msgspec.structs.replace(submit(0, [1]), adapter_id=1), "model"),
        (msgspec.structs.replace(submit(0, PROMPT), block_hashes=b"\0" * 16), "prompt"),
        (msgspec.structs.replace(submit(0, PROMPT), block_hashes=b"\0" * 80), "prompt"),
    ],
)
def test_what_cannot_run_is_refused_by_field(bad: Submit, field: str) -> None:
    with pytest.raises(Refusal) as refused:
        Bench().submit(bad)
    assert (refused.value.code, refused.value.field) == ("invalid", field)


def test_alternatives_are_at_most_the_vocabulary() -> None:
    bench = Bench(vocab_size=10)
    bench.submit(submit(0, [1], logprobs=10, prompt_logprobs=10))
    for asked in ({"logprobs": 11}, {"prompt_logprobs": 11}):
        with pytest.raises(Refusal) as refused:
            bench.submit(submit(1, [1], **asked))  # type: ignore[arg-type]  # by keyword
        assert refused.value.field in asked


def test_more_choices_than_may_ever_wait_are_invalid() -> None:
    with pytest.raises(Refusal) as refused:
        Bench(max_num_queued_reqs=3).submit(submit(0, [1], num_choices=4))
    assert (refused.value.code, refused.value.field) == ("invalid", "n")


def test_waiting_tokens_are_limited_with_every_choice_counted() -> None:
    bench = Bench(max_num_queued_tokens=50)
    bench.submit(submit(0, PROMPT))
    with pytest.raises(Refusal) as refused:
        bench.submit(submit(1, PROMPT, num_choices=2))
    assert refused.value.code == "overloaded"
    bench.submit(submit(1, PROMPT))
    assert bench.scheduler.waiting.num_tokens == 40


def test_a_prompt_over_the_limit_of_tokens_may_wait_alone() -> None:
    bench = Bench(max_num_queued_tokens=10)
    bench.submit(submit(0, PROMPT))
    bench.run()
    assert bench.tokens[0] == expected(0, 20, 8)
