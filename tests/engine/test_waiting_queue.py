"""The queue forgets rows that end while they wait, however long the head stays where it is."""

import gc

from engine.request import Row
from tests.helpers.scheduler_bench import Bench, submit


def num_rows_alive() -> int:
    """Of the whole process: `type`, since `isinstance` would ask a lazy module among the objects to load itself."""
    gc.collect()
    return sum(type(thing) is Row for thing in gc.get_objects())


def test_rows_that_give_up_waiting_are_not_kept() -> None:
    before = num_rows_alive()
    bench = Bench(max_num_seqs=1)
    bench.submit(submit(0, [1, 2, 3], max_tokens=40))
    bench.step()
    bench.submit(submit(1, [1, 2, 3]))
    for number in range(2, 1000):
        (row,) = bench.submit(submit(number, [1, 2, 3]))
        del bench.rows[number]
        bench.scheduler.end(row)
    assert num_rows_alive() - before < 100
    bench.run()
    assert len(bench.tokens[1]) == 8


def test_those_who_stay_keep_their_order() -> None:
    bench = Bench(max_num_seqs=1, policy="priority")
    rows = {}
    for number in range(200):
        (rows[number],) = bench.submit(submit(number, [1, 2, 3], max_tokens=1, priority=number % 7))
    for number in range(200):
        if number % 9:
            bench.scheduler.end(rows[number])
        bench.scheduler.check()
    bench.run()
    assert bench.started == sorted(range(0, 200, 9), key=lambda number: (number % 7, number))
