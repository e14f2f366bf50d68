"""How a server ends: API servers drain, then the others stop, and every wait has a deadline. There is no way back."""

import logging
import time
from enum import Enum, auto

from frontend.supervisor.api_servers import ApiServers
from frontend.supervisor.listener import Listener
from frontend.supervisor.watch import Watch
from protocol.process import Drain, ExitStatus, Stop

logger = logging.getLogger("headrace.supervisor")

_BACKLOG_S = 0.2  # for connections that were made before the drain began
_DRAIN_GRACE_S = 5.0  # beyond what API servers were given to drain
_STOP_GRACE_S = 5.0
_KILL_GRACE_S = 5.0


class Stage(Enum):
    """How far the server's life has come."""

    SERVING = auto()  # or on the way to it
    DRAINING = auto()  # waiting for API servers to end
    STOPPING = auto()  # waiting for the others
    OVER = auto()


class Ending:
    """Knows what is waited for, how long, and what the exit status will be."""

    def __init__(self, listener: Listener, watch: Watch, api_servers: ApiServers) -> None:
        self.stage = Stage.SERVING
        self._listener = listener
        self._watch = watch
        self._api_servers = api_servers
        self._deadline: float | None = None
        self._failure: ExitStatus | None = None
        self._hurried_by: int | None = None

    @property
    def status(self) -> int:
        """The server's exit status: the first fatal cause, else the signal that cut the drain short."""
        if self._failure is not None:
            return self._failure
        return ExitStatus.OK if self._hurried_by is None else 128 + self._hurried_by

    @property
    def patience_s(self) -> float:
        """How long nothing needs to be looked at."""
        return float("inf") if self._deadline is None else self._deadline - time.monotonic()

    def begin(self, timeout_s: float) -> None:
        """Refuse new connections and let API servers finish what has begun."""
        self.stage, self._deadline = Stage.DRAINING, time.monotonic() + timeout_s + _DRAIN_GRACE_S
        if self._api_servers.any_ready:
            self._listener.wait_until_accepted(_BACKLOG_S)
        self._listener.refuse()
        self._api_servers.tell(Drain(timeout_s=timeout_s))
        self.advance()

    def note_failure(self, status: ExitStatus) -> None:
        """A fatal cause; only the first one counts."""
        self._failure = self._failure or status

    def hurry(self, signal_number: int) -> None:
        """Wait for nothing any more."""
        self._hurried_by = self._hurried_by or signal_number
        self.stage, self._deadline = Stage.STOPPING, time.monotonic() + _KILL_GRACE_S
        for child in self._watch.children:
            child.kill()

    def advance(self) -> None:
        """Go on to the next stage when nobody is left to wait for."""
        if self.stage is Stage.DRAINING and not self._api_servers.alive:
            self.stage, self._deadline = Stage.STOPPING, time.monotonic() + _STOP_GRACE_S
            self._stop_the_others()
        if self.stage is Stage.STOPPING and not self._watch.children:
            self.stage = Stage.OVER

    def check_deadline(self) -> None:
        """Kill whoever was waited for too long."""
        if self.patience_s > 0:
            return
        for child in self._api_servers.alive if self.stage is Stage.DRAINING else self._watch.children:
            logger.error("%s did not end in time: killed", child.name)
            child.kill()
        if self._hurried_by is not None:
            self.stage = Stage.OVER  # not even SIGKILL ends a process that hangs in the kernel
        self._deadline = time.monotonic() + _KILL_GRACE_S

    def _stop_the_others(self) -> None:
        for child in self._watch.children:
            if child.is_ready:
                child.send(Stop())
            else:
                child.kill()  # it may load or download for long, and holds nothing that is worth waiting for
