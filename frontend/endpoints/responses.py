"""A generation as a response: whole or streamed, and stopped by the one same path when its client is gone."""

import asyncio
from abc import abstractmethod
from collections.abc import Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from frontend.endpoints.generations import AnswerPlan, Generations
from frontend.errors import from_exception
from frontend.request import Delta
from frontend.services import Services
from frontend.sse import DONE, EventStream
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
        watch = asyncio.create_task(_when_gone(receive, gathering.abandon))
        try:
            if await gathering.ended:
                body = self._plan.format.whole(gathering.choices, generations.usage)
                await JsonBytes(body)(scope, receive, send)
        finally:
            watch.cancel()
            generations.cancel()


class StreamResponse(GenerationResponse):
    """Events as they come."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = EventStream(keep_alive_s=self._services.settings.sse_keep_alive_interval)
        writer = _EventWriter(self._plan, stream)
        writer.generations = generations = Generations(self._services, self._plan, writer)
        watch = asyncio.create_task(_when_gone(receive, stream.end))
        try:
            await stream.send_to(send)
        finally:
            watch.cancel()
            generations.cancel()


async def _when_gone(receive: Receive, then: Callable[[], None]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    then()


class _Gathering:
    """The sink of a whole answer."""

    def __init__(self, num_choices: int) -> None:
        self.choices = [Choice() for _ in range(num_choices)]
        # True: complete. False: its client is gone.
        self.ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def abandon(self) -> None:
        if not self.ended.done():
            self.ended.set_result(False)

    def on_delta(self, delta: Delta) -> None:
        self.choices[delta.choice].add(delta)

    def on_end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(True)

    def on_error(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)


class _EventWriter:
    """The sink of a streamed answer: each delta becomes the bytes of one event at once."""

    generations: Generations

    def __init__(self, plan: AnswerPlan, stream: EventStream) -> None:
        self._plan = plan
        self._format = plan.format
        self._stream = stream
        self._opened = [False] * plan.num_choices

    def on_delta(self, delta: Delta) -> None:
        usage = self.generations.usage if self._plan.usage_in_each_chunk else None
        opening = b""
        if not self._opened[delta.choice]:
            self._opened[delta.choice] = True
            opening = self._format.opening(delta.choice)  # before the chunk, whose offsets begin where it ends
        if event := opening + self._format.chunk(delta, usage):
            self._stream.write(event)

    def on_end(self) -> None:
        if self._plan.usage_chunk:
            self._stream.write(self._format.usage_chunk(self.generations.usage))
        self._stream.write(DONE)
        self._stream.end()

    def on_error(self, error: Exception) -> None:
        self._stream.fail(from_exception(error))
