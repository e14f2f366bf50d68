"""SIGTERM and SIGINT as notes in a pipe: what a signal means is decided by the loop that reads them."""

import signal
import socket
from types import FrameType, TracebackType

_NOTED = (signal.SIGTERM, signal.SIGINT)
_MAX_NOTES = 64


class SignalNotes:
    """While entered, no signal of `_NOTED` ends the process; `take()` says which have come. Main thread only."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.settimeout(0)
        self._writer.settimeout(0)

    def fileno(self) -> int:
        """Readable when there are notes to take."""
        return self._reader.fileno()

    def take(self) -> list[int]:
        """The numbers of the signals that came since the last call, in their order."""
        try:
            return list(self._reader.recv(_MAX_NOTES))
        except BlockingIOError:
            return []

    def __enter__(self) -> "SignalNotes":
        self._old_wakeup_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._old_handlers = {number: signal.signal(number, _already_noted) for number in _NOTED}
        # Whoever started us may ignore it, and then the kernel would reap our children before we see how they ended.
        self._old_handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_wakeup_fd)
        self._reader.close()
        self._writer.close()


def _already_noted(number: int, frame: FrameType | None) -> None:
    """The interpreter has written the number to the wakeup descriptor; it does so only for handlers in Python."""
