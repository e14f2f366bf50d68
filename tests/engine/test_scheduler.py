"""Scheduler, KV cache and collector under random traffic on a runner that checks every batch as a device would."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.batch import StepResult
from engine.intake import Refusal
from engine.request import RowState
from protocol.launch import SchedulingPolicy
from protocol.messages import Finish, Submit
from tests.helpers.scheduler_bench import VOCAB, Bench, expected, submit


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    depth=st.integers(0, 2),  # 2: more than any runner has, for what only holds by luck with one
    tight=st.booleans(),
    policy=st.sampled_from(["fcfs", "priority"]),
)
def test_every_row_gets_exactly_its_tokens(seed: int, depth: int, tight: bool, policy: SchedulingPolicy) -> None:
    """Random joins, aborts, shared prefixes, n > 1, few blocks: each row ends once with the tokens that are its own."""
    rng = random.Random(seed)
    bench = Bench(depth=depth, num_blocks=16 if tight else 60, budget=rng.choice([8, 16, 40]), policy=policy)
    aborted: set[int] = set()
    wanted: dict[int, tuple[int, int, int]] = {}
    number = 0
    for _ in range(rng.randrange(1, 60)):
        if rng.random() < 0.4:
            prompt = [7] * rng.randrange(0, 20) + [rng.randrange(VOCAB) for _ in range(rng.randrange(1, 12))]
            num_choices = rng.choice([1, 1, 1, 3])
            max_tokens = rng.randrange(1, 30)
            share = rng.random() < 0.8
            rows = bench.submit(
                submit(
                    number,
                    prompt,
                    max_tokens=max_tokens,
                    num_choices=num_choices,
                    share=share,
                    priority=rng.randrange(3),
                )
            )
            for row in rows:
                wanted[row.number] = (row.seed, len(prompt), min(max_tokens, 64 - len(prompt)))
            number += num_choices
        if wanted and rng.random() < 0.1:
            victim = rng.choice(list(wanted))
            if bench.rows[victim].state is not RowState.ENDED:
                bench.scheduler.end(bench.rows[victim])
                aborted.add(victim)
        bench.step()
    bench.run()
    for row_number, (row_seed, prompt_len, count) in wanted.items():
        all_tokens = expected(row_seed, prompt_len, count)
        if row_number in aborted:
            assert bench.tokens[row_number] == all_tokens[: len(bench.tokens[row_number])]
        else:
            assert bench.tokens[row_number] == all_tokens
            assert bench.finishes[row_number] is Finish.LENGTH
    assert bench.scheduler.pool.num_held == 0
    assert bench.scheduler.slots.num_free == bench.plan.max_num_seqs
    assert len(bench.started) == len(set(bench.started))


def test_a_prefix_is_computed_once() -> None:
    bench = Bench()
    bench.submit(submit(0, list(range(20))))
    bench.run()
    computed = bench.runner.num_prefilled
    bench.submit(submit(1, list(range(20))))
    bench.run()
    assert bench.runner.num_prefilled - computed == 4  # the last of five full blocks: its logits are needed
    assert bench.rows[1].num_cached == 16


def test_the_answer_is_found_by_the_next_turn() -> None:
    bench = Bench()
    bench.submit(submit(0, list(range(8)), max_tokens=9))
    bench.run()
    follow_up = list(range(8)) + bench.tokens[0] + [5, 6, 7]
    bench.submit(submit(1, follow_up))
    bench.run()
    assert bench.rows[1].num_cached == 16  # 8 of the prompt and 8 outputs: the ninth was never an input


def test_requests_that_do_not_share_find_nothing() -> None:
    bench = Bench()
    bench.submit(submit(0, list(range(20)), share=False))
    bench.run()
    bench.submit(submit(1, list(range(20)), share=False))
    bench.run()
    assert bench.rows[1].num_cached == 0


def test_choices_share_the_prompt() -> None:
    bench = Bench()
    bench.submit(submit(0, list(range(20)), num_choices=4, share=False))
    bench.run()
    assert bench.runner.num_prefilled == 20 + 3 * 4
    assert [bench.tokens[i] for i in range(4)] == [expected(i, 20, 8) for i in range(4)]


def test_prompt_logprobs_read_no_prefix() -> None:
    bench = Bench()
    bench.submit(submit(0, list(range(20))))
    bench.run()
    bench.submit(submit(1, list(range(20)), prompt_logprobs=0))
    planned = bench.scheduler.plan()
    assert planned is not None
    assert planned.batch.chunk_lengths.tolist() == [20]
    assert planned.batch.chunk_prompt_logprobs.tolist() == [0]


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_preempted_rows_go_on_where_they_were(depth: int) -> None:
    bench = Bench(depth=depth, num_blocks=16)
    for number in range(6):
        bench.submit(submit(number, [number] * 9, max_tokens=40))
    bench.run()
    assert bench.scheduler.num_preemptions > 0
    for number in range(6):
        assert bench.tokens[number] == expected(number, 9, 40)
    assert sorted(bench.started) == list(range(6))


def test_a_replay_goes_on_at_the_border() -> None:
    bench = Bench()
    old = expected(3, 10, 5)
    bench.submit(submit(3, list(range(10)), outputs=old, max_tokens=8))
    bench.run()
    assert bench.tokens[3] == expected(3, 10, 8)[5:]


@pytest.mark.parametrize("depth", [0, 1])
def test_stop_ids_and_eos(depth: int) -> None:
    line = expected(5, 4, 12)
    bench = Bench(depth=depth, eos=(line[3],))
    bench.submit(submit(5, [1, 2, 3, 4], max_tokens=12))
    bench.submit(submit(6, [1, 2, 3, 4], max_tokens=12, seed=5, ignore_eos=True, stop_token_ids=(line[6],)))
    bench.submit(submit(7, [1, 2, 3, 4], max_tokens=12, seed=5, min_tokens=4, stop_token_ids=(1, 2, 3, 4, 5, line[7])))
    bench.run()
    assert (bench.tokens[5], bench.finishes[5]) == (line[:4], Finish.EOS)
    assert (bench.tokens[6], bench.finishes[6]) == (line[:7], Finish.STOP_TOKEN)
    assert (bench.tokens[7], bench.finishes[7]) == (line[:8], Finish.STOP_TOKEN)


def test_priority_comes_first() -> None:
    bench = Bench(policy="priority", max_num_seqs=1)
    for number, priority in enumerate([5, 5, -1]):
        bench.submit(submit(number, [1, 2, 3], max_tokens=2, priority=priority))
    bench.run()
    assert bench.started == [2, 0, 1]


def test_without_chunks_a_prompt_runs_whole() -> None:
    bench = Bench(budget=20, chunked=False)
    for number in range(3):
        bench.submit(submit(number, [number] * 15, share=False))
    lengths = []
    for _ in range(6):
        planned = bench.scheduler.plan()
        if planned is None:
            break
        lengths += planned.batch.chunk_lengths.tolist()
        bench.runner.launch(planned.batch)
        bench.collector.collect(planned, bench.runner.collect())
    assert lengths == [15, 15, 15]


def test_a_row_with_bad_logits_fails_alone() -> None:
    bench = Bench()
    for number in range(3):
        bench.submit(submit(number, [1, 2, 3]))
    planned = bench.scheduler.plan()
    assert planned is not None
    bench.runner.launch(planned.batch)
    result = bench.runner.collect()
    failed = np.array([False, True, False])
    news = bench.collector.collect(planned, StepResult(tokens=result.tokens, failed=failed))
    assert [row.number for row in news.failed] == [1]
    assert news.numbers.tolist() == [0, 2]
    bench.scheduler.check()
    assert bench.scheduler.slots.num_running == 2


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (submit(0, [1] * 64), "prompt"),
        (submit(0, [VOCAB]), "prompt"),
        (submit(0, [-1]), "prompt"),
        (submit(0, [1], temperature=-1.0), "temperature"),
        (submit(0, [1], stop_token_ids=(VOCAB,)), "stop_token_ids"),
        (submit(0, [1], num_choices=9), "n"),
        (submit(0, [1], outputs=[1] * 8), "max_tokens"),
        (submit(0, [1], prompt_logprobs=21), "prompt_logprobs"),
    ],
)
def test_a_bad_submit_is_refused_by_field(bad: Submit, field: str) -> None:
    bench = Bench()
    with pytest.raises(Refusal) as refused:
        bench.submit(bad)
    assert refused.value.code == "invalid"
    assert refused.value.field == field
