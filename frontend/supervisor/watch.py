"""Everything that can happen to a supervisor, as a stream of plain events. Decides nothing."""

import selectors
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from frontend.supervisor.child import Child
from frontend.supervisor.signals import SignalNotes
from protocol.process import FromChild


@dataclass(frozen=True, slots=True)
class Signalled:
    """The supervisor got a signal."""

    number: int


@dataclass(frozen=True, slots=True)
class Said:
    """A child sent a message."""

    child: Child
    message: FromChild


@dataclass(frozen=True, slots=True)
class Ended:
    """A child was reaped; `status` as in `Child.reap`. Everything that it said came before."""

    child: Child
    status: int


Event: TypeAlias = Signalled | Said | Ended


class Watch:
    """Watches the signals and every child that is alive."""

    def __init__(self, signals: SignalNotes) -> None:
        self.children: list[Child] = []
        self._selector = selectors.DefaultSelector()
        self._signals = signals
        self._register(signals.fileno(), self._take_signals)

    def add(self, child: Child) -> None:
        """Watch a child until it has ended."""
        self.children.append(child)
        self._register(child.channel.fileno(), lambda: self._listen(child))
        self._register(child.end_fd, lambda: self._reap(child))

    def wait(self, timeout_s: float) -> list[Event]:
        """What has happened; an empty list after the timeout."""
        events: list[Event] = []
        for key, _ in self._selector.select(max(0.0, timeout_s)):
            events += key.data()
        return events

    def close(self) -> None:
        """Give the selector back. Whoever is still alive is not watched any more."""
        self._selector.close()

    def _register(self, fd: int, look: Callable[[], list[Event]]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, look)

    def _take_signals(self) -> list[Event]:
        return [Signalled(number) for number in self._signals.take()]

    def _listen(self, child: Child) -> list[Event]:
        if child not in self.children:  # its end was among the same events
            return []
        events: list[Event] = [Said(child, message) for message in child.messages()]
        if not child.is_open:
            self._selector.unregister(child.channel.fileno())  # what matters now is when it ends
        return events

    def _reap(self, child: Child) -> list[Event]:
        events: list[Event] = [Said(child, message) for message in child.messages()]
        if child.channel.fileno() in self._selector.get_map():
            self._selector.unregister(child.channel)
        self._selector.unregister(child.end_fd)
        self.children.remove(child)
        return [*events, Ended(child, child.reap())]
