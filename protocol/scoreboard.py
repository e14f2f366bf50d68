"""One page of numbers per process, in a memfd that every process maps: any API server can answer for the whole server.

Layout: rows of ROW_BYTES, each with exactly one writer, so that no lock is needed; every value is an aligned 8-byte
cell, so that no reader sees half a value. Row 0 is the supervisor's, which also says which life of each row is current.

A row holds its life (pid, life id, state, heartbeat), *counters* and *gauges*. Counters only grow and are taken over by
the row's next life; gauges count only while the row's life is current and its heartbeat fresh. The supervisor points a
row to a new life only after it has reaped the old process.
"""

import mmap
import os
import time
from bisect import bisect_left
from collections.abc import Iterator
from enum import IntEnum

CELL_BYTES = 8
ROW_BYTES = 4096
_CELLS = ROW_BYTES // CELL_BYTES
FRESH_S = 10.0  # a heartbeat older than this makes the row's gauges invalid


class State(IntEnum):
    """What a row's process does."""

    EMPTY = 0
    STARTING = 1
    READY = 2
    DRAINING = 3
    ENDED = 4


_LIFE = ("pid", "life", "state", "heartbeat_ns")
BUCKETS_S = (0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
HISTOGRAMS = ("ttft", "itl", "e2e")
_HISTOGRAM_CELLS = tuple(
    f"{name}_{cell}" for name in HISTOGRAMS for cell in (*(f"le_{i}" for i in range(len(BUCKETS_S) + 1)), "sum_us")
)
API_COUNTERS = (
    "requests",
    "requests_stop",
    "requests_length",
    "requests_abort",
    "requests_error",
    "prompt_tokens",
    "generation_tokens",
    "cached_tokens",
    *_HISTOGRAM_CELLS,
)
API_GAUGES = ("unsent_connections", "in_flight", "loop_lag_us")
ENGINE_COUNTERS = ("steps", "preemptions", "prefix_queries", "prefix_hits", "peers_ended", "tokens")
ENGINE_GAUGES = ("running", "waiting", "blocks_used", "blocks_total")
COUNTERS = API_COUNTERS + ENGINE_COUNTERS
GAUGES = API_GAUGES + ENGINE_GAUGES
_CELL_OF = {name: index for index, name in enumerate(_LIFE + COUNTERS + GAUGES)}

# the supervisor's row, beyond what every row has: the counts of each kind, then the current life of each row
_NUM_API, _NUM_ENGINES, _RESTARTS, _CURRENT = range(len(_CELL_OF), len(_CELL_OF) + 4)
_MAX_ROWS = _CELLS - _CURRENT


class Row:
    """One process's row: a view for its writer and for all readers."""

    __slots__ = ("_base", "_cells")

    def __init__(self, cells: "memoryview[int]", index: int) -> None:
        self._cells = cells
        self._base = index * _CELLS

    def get(self, name: str) -> int:
        """The value of a cell."""
        return self._cells[self._base + _CELL_OF[name]]

    def set(self, name: str, value: int) -> None:
        """Write a cell. Only the row's owner may."""
        self._cells[self._base + _CELL_OF[name]] = value

    def add(self, name: str, amount: int = 1) -> None:
        """Raise a counter, or move a gauge. Only the row's owner may."""
        self._cells[self._base + _CELL_OF[name]] += amount

    def observe(self, histogram: str, seconds: float) -> None:
        """Count one observation of a histogram (cumulative at reading, not here)."""
        bucket = bisect_left(BUCKETS_S, seconds)
        self.add(f"{histogram}_le_{bucket}")
        self.add(f"{histogram}_sum_us", int(seconds * 1e6))

    def begin(self, life: int) -> None:
        """A new life takes the row over: gauges are zeroed first, counters go on."""
        for name in GAUGES:
            self.set(name, 0)
        self.set("pid", os.getpid())
        self.set("state", State.STARTING)
        self.beat()
        self.set("life", life)

    def beat(self) -> None:
        """Say that the process lives; at least twice a second."""
        self.set("heartbeat_ns", time.monotonic_ns())


class Scoreboard:
    """The mapped file. Made once by the supervisor, opened by number in its children."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        size = os.fstat(fd).st_size
        self._cells = memoryview(mmap.mmap(fd, size)).cast("Q")

    @classmethod
    def create(cls, *, num_api_servers: int, num_engines: int) -> "Scoreboard":
        """A new one with a row for the supervisor, each API server and each engine core, in that order."""
        num_rows = 1 + num_api_servers + num_engines
        if num_rows > _MAX_ROWS:
            raise ValueError(f"a server of {num_rows} processes has more rows than the {_MAX_ROWS} of a scoreboard")
        fd = os.memfd_create("headrace-scoreboard", os.MFD_CLOEXEC)
        os.ftruncate(fd, ROW_BYTES * num_rows)
        board = cls(fd)
        board._cells[_NUM_API] = num_api_servers
        board._cells[_NUM_ENGINES] = num_engines
        return board

    @property
    def supervisor(self) -> Row:
        """Row 0; its `state` is the whole server's."""
        return Row(self._cells, 0)

    def api_row(self, place: int) -> Row:
        """The row of an API server."""
        return Row(self._cells, 1 + place)

    def engine_row(self, rank: int) -> Row:
        """The row of an engine core."""
        return Row(self._cells, 1 + self._cells[_NUM_API] + rank)

    def set_current(self, row_index: int, life: int) -> None:
        """The supervisor's: from now on this life's gauges count for the row (0: nobody's)."""
        self._cells[_CURRENT + row_index] = life

    def count_restart(self) -> None:
        """The supervisor's: one more child was replaced."""
        self._cells[_RESTARTS] += 1

    @property
    def restarts(self) -> int:
        """How many children were replaced since the server's start."""
        return self._cells[_RESTARTS]

    def api_rows(self) -> Iterator[tuple[int, Row]]:
        """(place, row) of every API server."""
        return ((i, self.api_row(i)) for i in range(self._cells[_NUM_API]))

    def engine_rows(self) -> Iterator[tuple[int, Row]]:
        """(rank, row) of every engine core."""
        return ((i, self.engine_row(i)) for i in range(self._cells[_NUM_ENGINES]))

    def is_live(self, row: Row) -> bool:
        """Whether the row's gauges count: its life is the current one and its heartbeat fresh."""
        index = row._base // _CELLS
        life = row.get("life")
        fresh = time.monotonic_ns() - row.get("heartbeat_ns") < FRESH_S * 1e9
        return life != 0 and life == self._cells[_CURRENT + index] and fresh
