"""The parent: binds, starts, watches, replaces and drains. Never imports torch, nor anything that serves a request."""

import contextlib
import logging
import time
from collections.abc import Sequence

from frontend.settings import Settings
from frontend.supervisor.errors import StartError
from frontend.supervisor.listener import Listener, bind_listener
from frontend.supervisor.open_files import raise_open_files_limit
from frontend.supervisor.programs import ENGINE_COMMAND, Premises, engine_threads, num_cores
from frontend.supervisor.run_dir import run_directory
from frontend.supervisor.signals import SignalNotes
from frontend.supervisor.supervision import Supervision
from protocol.logs import configure_logging
from protocol.scoreboard import Scoreboard

logger = logging.getLogger("headrace.supervisor")


def run(settings: Settings, *, engine_command: Sequence[str] = ENGINE_COMMAND) -> int:
    """Serve until a signal or a fatal cause; the process's exit status. The settings have been checked."""
    began = time.monotonic()
    configure_logging("supervisor", level=settings.log_level)
    try:
        with contextlib.ExitStack() as cleaning:
            raise_open_files_limit(max_num_seqs=settings.max_num_seqs)
            listener = bind_listener(settings)
            cleaning.callback(listener.close)
            signals = cleaning.enter_context(SignalNotes())
            _announce(settings, listener)
            premises = Premises(
                settings=settings,
                listener=listener,
                run_dir=cleaning.enter_context(run_directory()),
                scoreboard=Scoreboard.create(num_api_servers=settings.api_server_count, num_engines=1),
                engine_command=engine_command,
            )
            return Supervision(premises, signals, began=began).run()
    except StartError as error:
        logger.error("%s", error)
        return error.status


def _announce(settings: Settings, listener: Listener) -> None:
    """Where the server listens, and what it takes from the machine."""
    logger.info("listening on %s", listener.url)
    if listener.on_all_interfaces:
        logger.warning("it can be reached from other machines, without a key; --host 127.0.0.1 keeps it to this one")
    cores, count = num_cores(), settings.api_server_count
    logger.info("%d cores; CPU threads: %d for the engine core, 1 for each API server", cores, engine_threads())
    if cores < count + 1:
        logger.warning("%d cores are fewer than API servers and engine core together; they will take turns", cores)
