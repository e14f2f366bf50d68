"""The API servers of one server: each place has at most one alive, and a dead one is replaced at once."""

import logging

from frontend.supervisor.child import Child
from frontend.supervisor.programs import Premises, new_life, spawn_api_server
from frontend.supervisor.watch import Watch
from protocol.process import EngineEnded, EngineStarted, ToChild

logger = logging.getLogger("headrace.supervisor")

MAX_FAILURES = 5  # of one place, in a row, to become serving


class ApiServers:
    """Knows who is alive and what they must be told; decides nothing about the server."""

    def __init__(self, premises: Premises, watch: Watch) -> None:
        self._premises = premises
        self._watch = watch
        self._alive: dict[int, Child] = {}
        self._failures = [0] * premises.settings.api_server_count
        self._engines: dict[int, EngineStarted] = {}

    @property
    def alive(self) -> list[Child]:
        """Those that have not been reaped."""
        return list(self._alive.values())

    @property
    def any_ready(self) -> bool:
        """Whether somebody serves."""
        return any(child.is_ready for child in self._alive.values())

    def start_all(self) -> None:
        """One for each place."""
        for place in range(len(self._failures)):
            self._start(place)

    def tell(self, message: ToChild) -> None:
        """Say it to everyone who is alive."""
        for child in self._alive.values():
            child.send(message)

    def engine_started(self, engine: EngineStarted) -> None:
        """Tell everyone, and later everyone who is new."""
        self._engines[engine.rank] = engine
        self.tell(engine)

    def engine_ended(self, engine: EngineStarted, cause: str) -> None:
        """Tell everyone, and nobody of it any more."""
        self._engines.pop(engine.rank, None)
        self.tell(EngineEnded(rank=engine.rank, epoch=engine.epoch, cause=cause))

    def note_ready(self, child: Child) -> None:
        """It serves: its place has no failures any more."""
        child.is_ready = True
        self._failures[self._place_of(child)] = 0

    def note_end(self, child: Child) -> None:
        """It was reaped: nothing that it left on the scoreboard counts any more."""
        place = self._place_of(child)
        del self._alive[place]
        self._premises.scoreboard.set_current(1 + place, 0)
        if not child.is_ready:
            self._failures[place] += 1

    def replace(self) -> bool:
        """Start whoever is missing; False when a place has failed too often."""
        if max(self._failures) >= MAX_FAILURES:
            return False
        for place in range(len(self._failures)):
            if place not in self._alive:
                self._start(place)
                self._premises.scoreboard.count_restart()
        return True

    def _start(self, place: int) -> None:
        life = new_life()
        self._premises.scoreboard.set_current(1 + place, life)
        child = spawn_api_server(self._premises, place=place, life=life)
        self._alive[place] = child
        self._watch.add(child)
        for engine in self._engines.values():
            child.send(engine)

    def _place_of(self, child: Child) -> int:
        return next(place for place, other in self._alive.items() if other is child)
