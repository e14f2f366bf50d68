"""Nobody waits for ever: budgets that are smaller than prompts, caches that are full, prompts that do not fit yet."""

import pytest

from tests.helpers.scheduler_bench import Bench, expected, submit

LONGEST = 2**31 - 1


@pytest.mark.parametrize("depth", [0, 1])
def test_a_prompt_longer_than_the_budget_runs_without_chunked_prefill(depth: int) -> None:
    bench = Bench(budget=16, chunked=False, depth=depth)
    bench.submit(submit(0, [1, 2, 3], max_tokens=10))
    bench.submit(submit(1, list(range(40))))
    bench.submit(submit(2, [4, 5, 6]))
    bench.run()
    assert [len(bench.tokens[number]) for number in range(3)] == [10, 8, 8]


@pytest.mark.parametrize("depth", [0, 1])
def test_without_chunked_prefill_a_preempted_row_may_outgrow_the_budget(depth: int) -> None:
    bench = Bench(budget=16, chunked=False, depth=depth, num_blocks=16)
    for number in range(4):
        bench.submit(submit(number, [number] * 12, max_tokens=40, share=False))
    bench.run()
    assert bench.scheduler.num_preemptions > 0
    assert [bench.tokens[number] for number in range(4)] == [expected(number, 12, 40) for number in range(4)]


def test_a_budget_of_one_token_for_each_slot_is_enough() -> None:
    bench = Bench(budget=8, max_num_seqs=8)
    for number in range(12):
        bench.submit(submit(number, [number] * 30, max_tokens=20))
    bench.run()
    assert all(bench.tokens[number] == expected(number, 30, 20) for number in range(12))


def test_the_longest_row_fits_a_cache_of_its_size_while_others_come_and_go() -> None:
    bench = Bench(num_blocks=16, max_model_len=64, depth=1)
    bench.submit(submit(0, list(range(60)), max_tokens=LONGEST))
    for number in range(1, 30):
        bench.submit(submit(number, [number] * 10, max_tokens=5))
        bench.step()
    bench.run()
    assert bench.tokens[0] == expected(0, 60, 4)


@pytest.mark.parametrize("depth", [0, 1])
def test_who_came_first_ends_first_however_often_others_are_preempted(depth: int) -> None:
    bench = Bench(depth=depth, num_blocks=16, budget=64)
    for number in range(6):
        bench.submit(submit(number, [number] * 9, max_tokens=40))
    while not bench.scheduler.num_preemptions:
        bench.step()
    for number in range(6, 9):  # who was preempted goes before them
        bench.submit(submit(number, [number] * 9, max_tokens=40))
    bench.run()
    assert list(bench.finishes) == list(range(9))
    assert bench.started == list(range(9))


@pytest.mark.parametrize("depth", [0, 1])
def test_nobody_is_admitted_in_the_step_in_which_another_is_preempted(depth: int) -> None:
    bench = Bench(depth=depth, num_blocks=16)
    for number in range(6):
        bench.submit(submit(number, [number] * 9, max_tokens=40))
    preemptions = 0
    while len(bench.finishes) < 6:
        running = {row.number for row in bench.scheduler.slots.rows if row is not None}
        bench.step()
        if bench.scheduler.num_preemptions > preemptions:
            preemptions = bench.scheduler.num_preemptions
            assert {row.number for row in bench.scheduler.slots.rows if row is not None} <= running
    assert 0 < preemptions < 20


def test_a_head_that_does_not_fit_is_not_looked_up_in_every_step() -> None:
    bench = Bench(num_blocks=16)
    bench.submit(submit(0, [1] * 20, max_tokens=40))
    for _ in range(3):
        bench.step()
    bench.submit(submit(1, list(range(50))))
    lookups = 0
    match = bench.scheduler.pool.match

    def counted(hashes: list[bytes]) -> list[int]:
        nonlocal lookups
        lookups += 1
        return match(hashes)

    bench.scheduler.pool.match = counted  # type: ignore[method-assign]  # a spy
    for _ in range(20):
        bench.step()
    assert lookups == 1
    bench.run()
    assert bench.tokens[1] == expected(1, 50, 8)


def test_a_head_that_does_not_fit_goes_on_as_soon_as_its_prefix_is_computed() -> None:
    bench = Bench(num_blocks=14, budget=20, max_model_len=40)
    bench.submit(submit(0, list(range(36)), max_tokens=4))
    bench.submit(submit(1, [*range(36), 7], max_tokens=2))
    while not bench.tokens[0]:
        assert not bench.tokens[1]
        bench.step()
    bench.step()
    assert bench.tokens[1]
    assert 0 not in bench.finishes


def test_a_steady_step_leaves_arrays_of_earlier_steps_alone() -> None:
    bench = Bench(depth=1)
    for number in range(4):
        bench.submit(submit(number, [number] * 3, max_tokens=30))
    bench.step()
    bench.step()
    step = bench.in_flight[0]
    numbers, uids = step.numbers.tolist(), step.uids.tolist()
    slots, positions = step.slots.tolist(), step.positions.tolist()
    bench.scheduler.end(bench.rows[1])
    bench.submit(submit(9, [9] * 3))
    bench.step()
    assert (step.numbers.tolist(), step.uids.tolist()) == (numbers, uids)
    assert (step.slots.tolist(), step.positions.tolist()) == (slots, positions)
