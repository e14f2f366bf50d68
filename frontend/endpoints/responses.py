"""A generation as a response: whole or streamed, and stopped by the one same path when its client is gone."""

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from frontend.direct_body import DirectBody, offered
from frontend.endpoints.event_writer import EventWriter
from frontend.endpoints.generations import AnswerPlan, Generations
from frontend.request import UNTIL_THE_END, Delta, Lane
from frontend.services import Services
from frontend.sse import EventStream
from frontend.translate.answer import Choice


class JsonBytes(Response):
    """A finished JSON body."""

    media_type = "application/json"


class GenerationResponse(Response):
    """Starts the generation when it is to be sent. What is refused until the first byte keeps its own status."""

    def __init__(self, services: Services, plan: AnswerPlan) -> None:
        super().__init__()
        self._services = services
        self._plan = plan

    @abstractmethod
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Generate and send."""


class WholeResponse(GenerationResponse):
    """Everything at once, when all of it is there."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gathering = _Gathering(self._plan.num_choices)
        generations = Generations(self._services, self._plan, gathering)
        try:
            with _watching(offered(scope), receive, gathering.abandon):
                is_wanted = await gathering.ended
            if is_wanted:
                body = self._plan.format.whole(gathering.choices, generations.usage)
                await JsonBytes(body)(scope, receive, send)
        finally:
            generations.cancel()


class StreamResponse(GenerationResponse):
    """Events as they come."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings, direct = self._services.settings, offered(scope)
        stream = EventStream(keep_alive_s=settings.sse_keep_alive_interval, direct=direct)
        writer = EventWriter(self._plan, stream, interval=settings.stream_interval)
        writer.generations = generations = Generations(self._services, self._plan, writer)
        if direct is not None:
            direct.on_flow = writer.heed_flow
        try:
            with _watching(direct, receive, stream.end):
                await stream.send_to(send)
        finally:
            generations.cancel()


@contextmanager
def _watching(direct: DirectBody | None, receive: Receive, on_gone: Callable[[], None]) -> Iterator[None]:
    """Call back if the client leaves meanwhile."""
    if direct is not None:
        direct.watch(on_gone)
        yield
        return
    watch = asyncio.create_task(_when_gone(receive, on_gone))
    try:
        yield
    finally:
        watch.cancel()


async def _when_gone(receive: Receive, then: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    then()


class _Gathering:
    """The sink of a whole answer: each choice is told once, at its end."""

    def __init__(self, num_choices: int) -> None:
        self.choices = [Choice() for _ in range(num_choices)]
        # True: complete. False: its client is gone.
        self.ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def abandon(self) -> None:
        if not self.ended.done():
            self.ended.set_result(False)

    def lane(self, choice: int) -> Lane:
        return Lane(UNTIL_THE_END)

    def on_delta(self, delta: Delta) -> None:
        self.choices[delta.choice].add(delta)

    def on_end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(True)

    def on_error(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)
