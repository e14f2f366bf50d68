"""One engine core and what talks to it, from the settings to the last cleaning up."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

from frontend.model_files.source import resolve_model
from frontend.offline.engine_process import EngineProcess
from frontend.offline.errors import EngineError
from frontend.offline.loop_thread import LoopThread
from frontend.services import Services
from frontend.settings import Settings
from frontend.supervisor.programs import ENGINE_COMMAND, EnginePremises, new_life
from frontend.supervisor.run_dir import run_directory
from protocol.launch import ModelFiles
from protocol.process import EngineStarted
from protocol.scoreboard import Scoreboard

log = logging.getLogger("headrace.offline")


class Session:
    """Ready when made. What it starts lives in the thread of `loop`, and is used there only."""

    def __init__(self, settings: Settings, *, engine_command: Sequence[str] = ENGINE_COMMAND) -> None:
        """Raises ValueError for a model that cannot be served, `EngineError` for an engine core that cannot start."""
        self._end_cause: str | None = None
        self._engine: EngineProcess | None = None
        with contextlib.ExitStack() as cleaning:
            run_dir = cleaning.enter_context(run_directory())
            model = _find_model(settings, run_dir)
            self.loop = LoopThread("headrace-llm")
            cleaning.callback(self.loop.close)
            self.services = self.loop.run(self._make_services(settings))
            cleaning.callback(lambda: self.loop.run(self._stop()))
            premises = EnginePremises(
                settings=settings,
                run_dir=run_dir,
                scoreboard=self.services.scoreboard,
                engine_command=engine_command,
            )
            self._engine = self.loop.run(self._start_engine(premises, model))
            self.loop.run(self._until_ready(self._engine))
            self._cleaning = cleaning.pop_all()

    def check(self) -> None:
        """Raise `EngineError` when there is no engine core any more."""
        if self._end_cause is not None:
            raise EngineError(f"{self._end_cause}; make a new LLM")

    def close(self) -> None:
        """End the process and give everything back. May be called more than once."""
        self._note_end("this LLM was closed")
        self._cleaning.close()

    def _note_end(self, cause: str) -> None:
        self._end_cause = self._end_cause or cause  # the first is the cause

    # --- in the loop's thread ----------------------------------------------------------------------------------------

    async def _make_services(self, settings: Settings) -> Services:
        board = Scoreboard.create(num_api_servers=1, num_engines=1)
        return Services(settings, place=0, life=new_life(), scoreboard=board)

    async def _stop(self) -> None:
        """The connection goes first: what is not there cannot be lost."""
        self.services.close()
        if self._engine is not None:
            await self._engine.stop()

    async def _start_engine(self, premises: EnginePremises, model: ModelFiles) -> EngineProcess:
        engine = EngineProcess(premises, model, on_end=self._engine_ended)
        started = engine.started
        self.services.engine.connect(started.rank, started.epoch, started.address)
        return engine

    def _engine_ended(self, started: EngineStarted, cause: str) -> None:
        self._note_end(cause)
        self.services.engine.ended(started.rank, started.epoch, cause)

    async def _until_ready(self, engine: EngineProcess) -> None:
        ready = asyncio.ensure_future(self._ready())
        ended = asyncio.ensure_future(engine.ended.wait())
        await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if ready.done():
            return ready.result()
        ready.cancel()
        raise EngineError(str(self._end_cause))

    async def _ready(self) -> None:
        """The text side may fail to load: a ValueError or OSError that names the file."""
        await self.services.loaded()
        can_step = asyncio.Event()
        self.services.engine.on_ready(can_step.set)
        await can_step.wait()


def _find_model(settings: Settings, run_dir: Path) -> ModelFiles:
    return resolve_model(
        settings.model,
        run_dir=run_dir,
        progress=log.info,
        tokenizer=settings.tokenizer,
        revision=settings.revision,
        need_weights=settings.load_format != "dummy",
    )
