"""The engine core's process under an event loop: started, listened to, stopped. Its end is told as a sentence."""

import asyncio
import logging
from collections.abc import Callable

from frontend.supervisor.child import Child, describe_end
from frontend.supervisor.programs import EnginePremises, spawn_engine_core
from protocol.launch import ModelFiles
from protocol.process import CannotStart, EngineStarted, PhaseDone, Stop

log = logging.getLogger("headrace.offline")

_STOP_GRACE_S = 5.0


class EngineProcess:
    """From its start to its end. Made on the event loop; the child dies with the thread of it."""

    def __init__(
        self, premises: EnginePremises, model: ModelFiles, *, on_end: Callable[[EngineStarted, str], None]
    ) -> None:
        self._child, self.started = spawn_engine_core(premises, model)
        self._on_end = on_end
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._child.channel.fileno(), self._listen)
        self._loop.add_reader(self._child.end_fd, self._reap)

    async def stop(self) -> None:
        """Ask it to end, wait, and make it end."""
        if self.ended.is_set():
            return
        self._child.send(Stop())
        try:
            async with asyncio.timeout(_STOP_GRACE_S):
                await self.ended.wait()
        except TimeoutError:
            self._child.kill()
            await self.ended.wait()

    def _listen(self) -> None:
        for message in self._child.messages():
            if isinstance(message, CannotStart):
                self._child.refusal = message
            elif isinstance(message, PhaseDone):
                log.info("%s: %s in %.2f s", self._child.name, message.phase, message.seconds)
        if not self._child.is_open:
            self._loop.remove_reader(self._child.channel.fileno())

    def _reap(self) -> None:
        self._listen()
        self._loop.remove_reader(self._child.channel.fileno())
        self._loop.remove_reader(self._child.end_fd)
        self._on_end(self.started, _cause(self._child, self._child.reap()))
        self.ended.set()


def _cause(child: Child, status: int) -> str:
    return child.refusal.sentence if child.refusal else f"the engine core ended: {describe_end(status)}"
