"""What becomes of rows whose logits were not finite, and of rows that end while a step with them is out."""

import pytest

from engine.request import RowState
from protocol.messages import Finish
from tests.helpers.scheduler_bench import Bench, expected, submit

PROMPT = list(range(20))


def test_a_row_that_fails_at_its_first_token_has_not_started() -> None:
    bench = Bench()
    bench.runner.bad_seeds.add(1)
    bench.submit(submit(0, PROMPT))
    bench.submit(submit(1, PROMPT))
    bench.run()
    assert bench.failed == {1}
    assert bench.started == [0]


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("budget", [8, 32])
def test_nobody_reads_the_blocks_of_a_row_that_failed(depth: int, budget: int) -> None:
    bench = Bench(depth=depth, budget=budget)
    bench.runner.bad_seeds.add(1)
    bench.submit(submit(1, PROMPT))
    bench.run()
    assert bench.failed == {1}
    bench.submit(submit(2, PROMPT))
    bench.run()
    assert bench.rows[2].num_cached == 0
    assert bench.tokens[2] == expected(2, 20, 8)


def test_blocks_that_a_failed_row_shared_are_computed_again() -> None:
    bench = Bench()
    bench.submit(submit(0, PROMPT))
    bench.run()
    bench.runner.bad_seeds.add(1)
    bench.submit(submit(1, PROMPT))
    bench.run()
    bench.submit(submit(2, PROMPT))
    bench.run()
    assert bench.rows[1].num_cached == 16
    assert bench.rows[2].num_cached == 0


def test_a_failed_row_leaves_the_rows_that_share_its_blocks_alone() -> None:
    bench = Bench(depth=1)
    bench.runner.bad_seeds.add(8)
    bench.submit(submit(7, PROMPT, num_choices=3, max_tokens=20))
    bench.run()
    assert bench.failed == {8}
    assert bench.tokens[7] == expected(7, 20, 20)
    assert bench.tokens[9] == expected(9, 20, 20)


def test_siblings_of_a_leader_that_fails_go_on() -> None:
    bench = Bench()
    bench.runner.bad_seeds.add(7)
    bench.submit(submit(7, PROMPT, num_choices=3))
    bench.run()
    assert bench.failed == {7}
    assert [bench.finishes[number] for number in (8, 9)] == [Finish.LENGTH] * 2


@pytest.mark.parametrize("num_steps", [0, 1, 2, 3])
@pytest.mark.parametrize("depth", [0, 1])
def test_siblings_go_on_when_their_leader_is_aborted(depth: int, num_steps: int) -> None:
    bench = Bench(depth=depth, budget=8)
    leader, *_ = bench.submit(submit(0, PROMPT, num_choices=3))
    for _ in range(num_steps):
        bench.step()
    bench.scheduler.end(leader)
    bench.run()
    assert [bench.tokens[number] for number in (1, 2)] == [expected(number, 20, 8) for number in (1, 2)]
    assert bench.scheduler.pool.num_held == 0


@pytest.mark.parametrize("depth", [0, 1])
def test_nothing_comes_of_a_step_for_the_next_row_of_a_slot(depth: int) -> None:
    bench = Bench(depth=depth, max_num_seqs=1)
    first, *_ = bench.submit(submit(0, [1, 2, 3], max_tokens=30))
    for _ in range(4):
        bench.step()
    bench.scheduler.end(first)
    bench.submit(submit(1, [4, 5, 6, 7]))
    bench.run()
    assert bench.tokens[1] == expected(1, 4, 8)
    assert bench.rows[0].state is RowState.ENDED


@pytest.mark.parametrize("depth", [0, 1])
def test_prompt_logprobs_are_whole_after_chunks_and_preemption(depth: int) -> None:
    bench = Bench(depth=depth, num_blocks=15, budget=5)
    for number in range(3):
        bench.submit(submit(number, [number] * 5, max_tokens=30))
    bench.submit(submit(5, PROMPT, max_tokens=30, prompt_logprobs=1))
    computed_before = 0
    while not bench.scheduler.num_preemptions:
        bench.step()
        computed_before = len(bench.prompt_logprobs.get(5, []))
    assert 0 < computed_before < len(PROMPT) - 1
    bench.run()
    assert bench.prompt_logprobs == {5: [-float(token) for token in PROMPT[1:]]}
