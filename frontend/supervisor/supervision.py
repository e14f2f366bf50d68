"""The life of a server after its socket is bound: start, serve, drain, stop. One thread, one event after the other."""

import logging
import os
import signal
import time

import msgspec

from frontend.supervisor.api_servers import MAX_FAILURES, ApiServers
from frontend.supervisor.child import Child, describe_end
from frontend.supervisor.ending import Ending, Stage
from frontend.supervisor.greeting import first_steps
from frontend.supervisor.programs import Premises, new_life, spawn_engine_core, spawn_prepare_model
from frontend.supervisor.signals import SignalNotes
from frontend.supervisor.watch import Ended, Event, Said, Signalled, Watch
from protocol.launch import ModelFiles
from protocol.process import CannotStart, EngineStarted, ExitStatus, PhaseDone, Ready
from protocol.scoreboard import State

logger = logging.getLogger("headrace.supervisor")

_BEAT_S = 0.5
_FAILED_DRAIN_S = 5.0  # without an engine there is nothing to wait for but error messages


class Supervision:
    """Decides what each event means for the server."""

    def __init__(self, premises: Premises, signals: SignalNotes, *, began: float) -> None:
        self._premises = premises
        self._row = premises.scoreboard.supervisor
        self._watch = Watch(signals)
        self._api_servers = ApiServers(premises, self._watch)
        self._preparing: Child | None = None
        self._model_fd = -1
        self._engine: Child | None = None
        self._engine_started: EngineStarted | None = None
        self._ending = Ending(premises.listener, self._watch, self._api_servers)
        self._began = began

    def run(self) -> int:
        """From the first child to the last; returns the server's exit status."""
        try:
            self._start()
            while self._ending.stage is not Stage.OVER:
                for event in self._watch.wait(min(_BEAT_S, self._ending.patience_s)):
                    self._handle(event)
                self._ending.check_deadline()
                self._row.beat()
            logger.info("every process has ended after %.1f s", time.monotonic() - self._began)
            return self._ending.status
        finally:
            for child in self._watch.children:
                child.kill()
            self._watch.close()

    # --- starting ----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        life = new_life()
        self._row.begin(life)
        self._premises.scoreboard.set_current(0, life)
        self._api_servers.start_all()
        self._model_fd = os.memfd_create("headrace-model", os.MFD_CLOEXEC)
        self._preparing = spawn_prepare_model(self._premises, answer_fd=self._model_fd)
        self._watch.add(self._preparing)

    def _model_prepared(self, child: Child, status: int) -> None:
        self._preparing = None
        with open(self._model_fd, "rb") as answer:
            answer.seek(0)
            data = answer.read()
        if self._ending.stage is not Stage.SERVING:
            self._ending.advance()
        elif status != 0:
            self._fail_to_start(child, status)
        else:
            self._start_engine(msgspec.json.decode(data, type=ModelFiles))

    def _start_engine(self, model: ModelFiles) -> None:
        self._engine, self._engine_started = spawn_engine_core(self._premises, model)
        self._premises.scoreboard.set_current(self._engine_row, self._engine_started.epoch)
        self._watch.add(self._engine)
        self._api_servers.engine_started(self._engine_started)

    @property
    def _engine_row(self) -> int:
        return 1 + self._premises.settings.api_server_count

    # --- events ------------------------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        match event:
            case Signalled(number):
                self._signalled(number)
            case Said(child, message):
                self._said(child, message)
            case Ended(child, status) if child is self._preparing:
                self._model_prepared(child, status)
            case Ended(child, status) if child is self._engine:
                self._engine_ended(child, status)
            case Ended(child, status):
                self._api_server_ended(child, status)

    def _said(self, child: Child, message: PhaseDone | Ready | CannotStart) -> None:
        match message:
            case PhaseDone(phase=phase, seconds=seconds, detail=detail):
                logger.info("%s: %s in %.2f s%s", child.name, phase, seconds, f" ({detail})" if detail else "")
            case CannotStart():
                child.refusal = message
            case Ready():
                self._ready(child)

    def _ready(self, child: Child) -> None:
        logger.info("%s: ready %.2f s after its start", child.name, time.monotonic() - child.began)
        if child is self._engine:
            child.is_ready = True
        else:
            self._api_servers.note_ready(child)
        engine_ready = self._engine is not None and self._engine.is_ready
        if self._row.get("state") == State.STARTING and engine_ready and self._api_servers.any_ready:
            self._row.set("state", State.READY)
            logger.info("ready at %s after %.2f s", self._premises.listener.url, time.monotonic() - self._began)
            for line in first_steps(self._premises.settings, self._premises.listener.url):
                logger.info("%s", line)

    def _engine_ended(self, child: Child, status: int) -> None:
        started, self._engine = self._engine_started, None
        assert started is not None  # it was set together with the engine
        self._premises.scoreboard.set_current(self._engine_row, 0)
        if self._ending.stage is Stage.STOPPING:
            self._ending.advance()
            return
        cause = f"{child.name} ended: {describe_end(status)}"
        if child.refusal is not None:
            cause = child.refusal.sentence
        self._api_servers.engine_ended(started, cause)
        if child.refusal is not None and not child.is_ready:
            self._fail(ExitStatus(child.refusal.status), cause)
        else:
            self._fail(ExitStatus.ENGINE_GONE, cause)

    def _api_server_ended(self, child: Child, status: int) -> None:
        self._api_servers.note_end(child)
        if self._ending.stage is not Stage.SERVING:
            self._ending.advance()
        elif child.refusal is not None and self._row.get("state") == State.STARTING:
            self._fail_to_start(child, status)
        else:
            reason = child.refusal.sentence if child.refusal is not None else describe_end(status)
            logger.warning("%s ended (%s); starting a new one", child.name, reason)
            if not self._api_servers.replace():
                self._fail(
                    ExitStatus.API_SERVERS_GONE, f"{child.name} failed {MAX_FAILURES} times in a row to become ready"
                )

    def _signalled(self, number: int) -> None:
        name = signal.Signals(number).name
        if self._ending.stage is Stage.SERVING:
            timeout = self._premises.settings.shutdown_timeout
            logger.info("%s: draining for at most %g s; a second signal ends at once", name, timeout)
            self._drain(timeout)
        else:
            logger.warning("%s: ending at once", name)
            self._ending.hurry(number)

    # --- ending ------------------------------------------------------------------------------------------------------

    def _fail_to_start(self, child: Child, status: int) -> None:
        if child.refusal is not None:
            self._fail(ExitStatus(child.refusal.status), child.refusal.sentence)
        else:
            self._fail(ExitStatus.CANNOT_START, f"{child.name} could not be prepared: {describe_end(status)}")

    def _fail(self, status: ExitStatus, sentence: str) -> None:
        """A fatal cause: said once, and the first one decides the exit status."""
        logger.error("%s", sentence)
        self._ending.note_failure(status)
        if self._ending.stage is Stage.SERVING:
            self._drain(_FAILED_DRAIN_S)
        else:
            self._ending.advance()

    def _drain(self, timeout_s: float) -> None:
        self._row.set("state", State.DRAINING)
        self._ending.begin(timeout_s)
