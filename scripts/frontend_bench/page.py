"""The page of numbers that the benchmark's processes share: the engine's pace, when it sent, what clients got."""

from pathlib import Path

import numpy as np

MAX_CLIENTS = 64
NUM_STEP_TIMES = 8192  # a step's time is overwritten after so many: far longer than any event is on its way
COUNTS = ("events", "tokens", "ended", "wrong", "cpu_us")
_STEP_US, _WINDOW, _STOPPED, _NUM_STEPS, _CLIENTS = range(5)
_TIMES = _CLIENTS + MAX_CLIENTS * len(COUNTS)


class Page:
    """A mapped file of int64 cells, each with one writer."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(8 * (_TIMES + NUM_STEP_TIMES)))
        self._cells = np.memmap(path, np.int64, mode="r+")
        self.path = path
        self.counts = self._cells[_CLIENTS:_TIMES].reshape(MAX_CLIENTS, len(COUNTS))
        self.sent_ns = self._cells[_TIMES:]

    def pace(self, *, step_us: int, window: int) -> None:
        """From now on a step every so often; 0: as fast as clients receive, `window` steps being on their way."""
        self._cells[_WINDOW] = window
        self._cells[_STEP_US] = step_us

    @property
    def step_us(self) -> int:
        return int(self._cells[_STEP_US])

    @property
    def window(self) -> int:
        return int(self._cells[_WINDOW])

    @property
    def stopped(self) -> bool:
        """Clients are to end what runs and begin nothing."""
        return bool(self._cells[_STOPPED])

    def start(self) -> None:
        """Zero the counts for another run."""
        self._cells[_STOPPED] = 0
        self.counts[:] = 0

    def stop(self) -> None:
        """Let clients come to their end."""
        self._cells[_STOPPED] = 1

    @property
    def num_steps(self) -> int:
        return int(self._cells[_NUM_STEPS])

    def note_step(self, step: int, now_ns: int) -> None:
        """The engine is about to send this step."""
        self.sent_ns[step % NUM_STEP_TIMES] = now_ns
        self._cells[_NUM_STEPS] = step

    def total(self, name: str) -> int:
        """Over all clients."""
        return int(self.counts[:, COUNTS.index(name)].sum())
