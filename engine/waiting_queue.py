"""Rows that wait for a slot and blocks, in the order in which they are to be served."""

from heapq import heappop, heappush

from engine.request import Row, RowState


class WaitingQueue:
    """A heap by `Row.order`. A row that ends while it waits stays in the heap and is skipped when its turn comes."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[int, int], int, Row]] = []
        self.num_rows = 0
        self.num_tokens = 0

    def push(self, row: Row) -> None:
        """Put a row where its order says: a preempted row, which is older, comes before newer ones."""
        row.state = RowState.WAITING
        heappush(self._heap, (row.order, row.uid, row))
        self.num_rows += 1
        self.num_tokens += row.num_known

    def head(self) -> Row | None:
        """The row to be served next."""
        while self._heap and self._heap[0][2].state is not RowState.WAITING:
            heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def pop(self) -> Row:
        """Take the head, which must exist."""
        row = heappop(self._heap)[2]
        self._forget(row)
        return row

    def end(self, row: Row) -> None:
        """A waiting row ends."""
        row.state = RowState.ENDED
        self._forget(row)

    def _forget(self, row: Row) -> None:
        self.num_rows -= 1
        self.num_tokens -= row.num_known

    def check(self) -> None:
        """Raise AssertionError unless the counts are those of the rows that wait."""
        waiting = [row for _, _, row in self._heap if row.state is RowState.WAITING]
        assert len(waiting) == self.num_rows, "num_rows differs from the heap"
        assert sum(row.num_known for row in waiting) == self.num_tokens, "num_tokens differs from the heap"
