"""One API server process: accepts at once, becomes ready when its engine is, drains when it is told.

It knows its supervisor (a control channel), its neighbours (the scoreboard) and the shared socket; what a request is
and how it is served, `frontend.app` and `frontend.services` know.
"""

import asyncio
import faulthandler
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from frontend.accept import Acceptor
from frontend.connections import Connections
from frontend.gate import PROBES, Gate
from frontend.launch import ApiServerLaunch
from frontend.load import Load
from frontend.pulse import Pulse
from frontend.services import Services
from frontend.settled_memory import settle_memory
from protocol.logs import configure_logging
from protocol.process import (
    CannotStart,
    Drain,
    EngineEnded,
    EngineStarted,
    ExitStatus,
    FromChild,
    PhaseDone,
    Ready,
    Stop,
    ToChild,
    die_with,
    receive_to_child,
    send_control,
)
from protocol.scoreboard import Scoreboard, State

logger = logging.getLogger("headrace.api_server")

_IDLE_GRACE_S = 0.25  # for requests that were on their way when the drain began: they are told
_LAST_WORDS_S = 2.0  # for error events to reach their clients


class ApiServer:
    """Made on the running event loop; `run` is its whole life."""

    def __init__(self, launch: ApiServerLaunch) -> None:
        self._loop = asyncio.get_running_loop()
        self._settings = launch.settings
        scoreboard = Scoreboard(launch.scoreboard_fd)
        self._row = scoreboard.api_row(launch.place)
        self._row.begin(launch.life)
        self._control = socket.socket(fileno=launch.control_fd)
        self._control.settimeout(0)
        self._services = Services(launch.settings, place=launch.place, life=launch.life, scoreboard=scoreboard)
        self._gate = Gate(self._services)
        self._connections = Connections(self._gate, launch.settings, Load(self._row, scoreboard))
        self._acceptor = Acceptor(
            socket.socket(fileno=launch.listener_fd),
            self._connections.new,
            scoreboard=scoreboard,
            place=launch.place,
        )
        self._pulse = Pulse(self._row, self._connections.server_state)
        self._drain_asked = asyncio.Event()
        self._drain_until = 0.0
        self._status = ExitStatus.OK

    async def run(self) -> int:
        """Serve until told to drain, then drain; the process's exit status."""
        self._loop.add_reader(self._control, self._on_control)
        self._loop.add_signal_handler(signal.SIGTERM, self._ask_to_drain, self._settings.shutdown_timeout)
        self._acceptor.start()
        starting = self._loop.create_task(self._become_ready())
        asked = self._loop.create_task(self._drain_asked.wait())
        await asyncio.wait((starting, asked), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()  # raises what is wrong with us
        await asked
        starting.cancel()
        await self._drain()
        self._close()
        return self._status

    # --- starting ----------------------------------------------------------------------------------------------------

    async def _become_ready(self) -> None:
        await self._build_app()
        try:
            await self._services.loaded()
        except (ValueError, OSError) as error:  # of the settings or the model's files: trying again would not help
            self._status = ExitStatus.WRONG_SETTINGS
            self._say(CannotStart(status=self._status, sentence=str(error)))
            self._ask_to_drain(0.0)
            return
        settle_memory()
        self._services.engine.on_ready(self._note_ready)

    async def _build_app(self) -> None:
        """FastAPI takes longer to import than everything before it: meanwhile the gate answers."""
        started = time.monotonic()
        build_app = await asyncio.to_thread(_import_app)
        self._gate.app = app = build_app(self._services)
        if self._services.place == 0:
            logger.info("routes: %s", ", ".join(sorted({route.path for route in app.routes}.union(PROBES))))
        self._say(PhaseDone(phase="routes built", seconds=time.monotonic() - started))

    def _note_ready(self) -> None:
        """Called each time that an engine core becomes ready."""
        if self._row.get("state") == State.STARTING:
            self._row.set("state", State.READY)
            self._say(Ready())

    # --- the supervisor ----------------------------------------------------------------------------------------------

    def _on_control(self) -> None:
        try:
            message = receive_to_child(self._control)
        except BlockingIOError:
            return
        if message is None:
            os._exit(ExitStatus.CANNOT_START)  # without a supervisor nobody would ever end us
        self._obey(message)

    def _obey(self, message: ToChild) -> None:
        match message:
            case EngineStarted(rank=rank, epoch=epoch, address=address):
                self._services.engine.connect(rank, epoch, address)
            case EngineEnded(rank=rank, epoch=epoch, cause=cause):
                self._services.engine.ended(rank, epoch, cause)
            case Drain(timeout_s=timeout_s):
                self._ask_to_drain(timeout_s)
            case Stop():
                self._ask_to_drain(0.0)

    def _say(self, message: FromChild) -> None:
        try:
            send_control(self._control, message)
        except OSError as error:
            logger.debug("the supervisor was not told %s: %s", type(message).__name__, error)

    # --- ending ------------------------------------------------------------------------------------------------------

    def _ask_to_drain(self, timeout_s: float) -> None:
        """From a message or a signal: only a note, and the last one counts."""
        self._drain_until = self._loop.time() + timeout_s
        self._drain_asked.set()

    async def _drain(self) -> None:
        self._row.set("state", State.DRAINING)
        self._acceptor.stop()
        self._services.begin_drain()
        self._connections.close_after_responses()
        await self._connections.until_none(_IDLE_GRACE_S)
        self._connections.close_idle()
        while not await self._connections.until_none(_IDLE_GRACE_S):
            if self._loop.time() >= self._drain_until:
                self._services.fail_open_requests("The server is shutting down.")
                await self._connections.until_none(_LAST_WORDS_S)
                return

    def _close(self) -> None:
        self._pulse.stop()
        self._loop.remove_reader(self._control)
        self._services.close()
        if self._connections.access_log is not None:
            self._connections.access_log.flush()
        self._row.set("state", State.ENDED)


def main() -> int:
    """The process's exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    launch = msgspec.json.decode(sys.stdin.buffer.read(), type=ApiServerLaunch)
    die_with(launch.supervisor_pid)
    faulthandler.enable()
    Path("/proc/self/comm").write_text(f"headrace-api-{launch.place}")
    settings = launch.settings
    configure_logging(f"API server {launch.place}", level=settings.log_level, uvicorn_level=settings.uvicorn_log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(launch))


async def _serve(launch: ApiServerLaunch) -> int:
    return await ApiServer(launch).run()


def _import_app() -> Any:
    from frontend.app import build_app

    return build_app


if __name__ == "__main__":
    sys.exit(main())
