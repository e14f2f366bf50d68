"""Which blocks are found again, by whom, for how long; and that no block is ever in two places."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kv_cache.block_pool import BlockPool
from protocol.messages import Finish
from tests.helpers.scheduler_bench import Bench, expected, submit

PROMPT = list(range(20))


@pytest.mark.parametrize(
    ("first", "second", "num_cached"),
    [("", "", 16), ("a", "a", 16), ("a", "b", 0), ("a", "", 0), ("", "a", 0)],
)
def test_only_the_same_salt_shares(first: str, second: str, num_cached: int) -> None:
    bench = Bench()
    bench.submit(submit(0, PROMPT, salt=first))
    bench.run()
    bench.submit(submit(1, PROMPT, salt=second))
    bench.run()
    assert bench.rows[1].num_cached == num_cached


@pytest.mark.parametrize(("salt", "num_cached"), [("a", 8), ("b", 0)])
def test_a_prompt_shorter_than_a_block_has_its_answer_under_its_salt(salt: str, num_cached: int) -> None:
    bench = Bench()
    bench.submit(submit(0, [1, 2], max_tokens=8, salt="a"))
    bench.run()
    bench.submit(submit(1, [1, 2, *bench.tokens[0], 3], salt=salt))
    bench.run()
    assert bench.rows[1].num_cached == num_cached


def test_blocks_without_hashes_are_found_by_nobody_else() -> None:
    bench = Bench()
    bench.submit(submit(0, PROMPT, share=False, max_tokens=30))
    bench.run()
    bench.submit(submit(1, PROMPT + bench.tokens[0]))
    bench.run()
    assert bench.rows[1].num_cached == 0


@pytest.mark.parametrize("depth", [0, 1])
@pytest.mark.parametrize("num_outputs", [8, 9, 12, 13])
def test_exactly_the_accepted_tokens_are_found_however_far_ahead_it_ran(depth: int, num_outputs: int) -> None:
    """A token that was accepted last was never an input: a block that ends with it is not whole."""
    line = expected(0, 8, 20)
    bench = Bench(depth=depth, eos=(line[num_outputs - 1],))
    bench.submit(submit(0, PROMPT[:8], max_tokens=40))
    bench.run()
    assert (len(bench.tokens[0]), bench.finishes[0]) == (num_outputs, Finish.EOS)
    bench.submit(submit(1, PROMPT[:8] + bench.tokens[0] + [1] * 8, max_tokens=1))
    bench.run()
    assert bench.rows[1].num_cached == (8 + num_outputs - 1) // 4 * 4


@pytest.mark.parametrize("depth", [0, 1])
def test_an_aborted_row_leaves_what_it_has_computed(depth: int) -> None:
    bench = Bench(depth=depth, budget=8)
    (row,) = bench.submit(submit(0, PROMPT))
    while bench.runner.num_prefilled < 16:
        bench.step()
    bench.scheduler.end(row)
    bench.submit(submit(1, PROMPT))
    bench.run()
    assert bench.rows[1].num_cached == 16
    assert bench.tokens[1] == expected(1, 20, 8)


def test_the_least_recently_used_blocks_go_first_and_of_a_row_its_last() -> None:
    bench = Bench(num_blocks=16)
    for number in range(3):
        bench.submit(submit(number, [100 + number] * 16, max_tokens=1))
        bench.run()
    bench.submit(submit(3, [100] * 16, max_tokens=1))  # used again: the second row's are the oldest now
    bench.run()
    assert bench.rows[3].num_cached == 12
    bench.submit(submit(4, [7] * 28, max_tokens=1))  # four free blocks, and the three that are evicted first
    bench.run()
    found = [len(bench.scheduler.pool.match(bench.rows[number].hashes)) for number in range(5)]
    assert found == [3, 2, 4, 3, 7]


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_a_block_is_always_in_one_place(seed: int) -> None:
    rng = random.Random(seed)
    pool = BlockPool(12)
    tables: list[list[int]] = []
    names = [bytes([i]) for i in range(20)]
    for _ in range(60):
        action = rng.choice(["allocate", "share", "publish", "forget", "release"])
        if action == "allocate":
            tables.append(pool.allocate(rng.randrange(min(4, pool.num_available) + 1)).tolist())
        elif action == "share":
            blocks = pool.match(rng.sample(names, 3))
            pool.hold(blocks)
            tables.append(blocks)
        elif action == "publish" and tables:
            table = rng.choice(tables)
            pool.publish(np.array(table, np.int32), rng.sample(names, len(table)))
        elif action == "forget":
            pool.forget(rng.sample(names, 5))
        elif action == "release" and tables:
            pool.release(np.array(tables.pop(rng.randrange(len(tables))), np.int32))
        pool.check(np.array([block for table in tables for block in table], np.int32))
    for name in names:
        assert len(pool.match([name])) <= 1
    pool.forget(names)
    assert all(not pool.match([name]) for name in names)
    assert pool.num_held == len({block for table in tables for block in table})
