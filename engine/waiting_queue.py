"""Rows that wait for a slot and blocks, in the order in which they are to be served."""

from heapq import heapify, heappop, heappush

from engine.request import Row, RowState

_MIN_STALE = 64  # ended rows in the heap below which sweeping them out is not worth it


class WaitingQueue:
    """A heap by `Row.order`. Rows that end while they wait stay in it until they are as many as those that wait."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[int, int], int, Row]] = []
        self._held: set[Row] = set()
        self.num_rows = 0  # held ones included
        self.num_tokens = 0

    def hold(self, row: Row) -> None:
        """A row waits outside the order until it is pushed: a later choice, whose prompt is being computed."""
        row.state = RowState.HELD
        self._held.add(row)
        self._count(row, 1)

    def push(self, row: Row) -> None:
        """Put a row where its order says: a preempted row, which is older, comes before newer ones."""
        if row.state is RowState.HELD:
            self._held.remove(row)
        else:
            self._count(row, 1)
        row.state = RowState.WAITING
        heappush(self._heap, (row.order, row.uid, row))

    def head(self) -> Row | None:
        """The row to be served next."""
        while self._heap and self._heap[0][2].state is not RowState.WAITING:
            heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def pop(self) -> Row:
        """Take the head, which must exist."""
        row = heappop(self._heap)[2]
        self._count(row, -1)
        return row

    def end(self, row: Row) -> None:
        """A waiting or held row ends."""
        self._held.discard(row)
        row.state = RowState.ENDED
        self._count(row, -1)
        num_live = self.num_rows - len(self._held)
        if len(self._heap) > 2 * num_live + _MIN_STALE:
            self._heap = [entry for entry in self._heap if entry[2].state is RowState.WAITING]
            heapify(self._heap)

    def _count(self, row: Row, sign: int) -> None:
        self.num_rows += sign
        self.num_tokens += sign * row.num_known

    def check(self, placed: list[Row]) -> None:
        """Raise AssertionError unless the counts are right and each held row follows one that waits or has a slot."""
        ordered = [row for _, _, row in self._heap if row.state is RowState.WAITING]
        followers = [row for leader in placed + ordered for row in leader.siblings if row.state is RowState.HELD]
        assert len(followers) == len(self._held), "a held row has no leader, or two"
        assert set(followers) == self._held, "a held row is not in the queue"
        waiting = ordered + followers
        assert len(waiting) == self.num_rows, "num_rows differs from the heap"
        assert sum(row.num_known for row in waiting) == self.num_tokens, "num_tokens differs from the heap"
