"""Requests that are answered together: all are, or none is. No more are open than the engine lets wait."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from frontend.errors import ApiError
from frontend.generation import Generation, start_generation
from frontend.offline.outputs import Gatherer, RequestOutput
from frontend.request import GenerationRequest
from frontend.services import Services

_RETRY_S = 0.05

OnOutput = Callable[[RequestOutput], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt; its text is None where token ids were given."""

    prompt: str | None
    request: GenerationRequest

    @property
    def num_tokens(self) -> int:
        """The most that its rows can have while they wait, answers of preempted rows included."""
        return (len(self.request.prompt_ids) + self.request.sampling.max_tokens) * self.request.num_choices


class Batch:
    """Made and run, once, on the event loop of its services."""

    def __init__(self, services: Services, on_output: OnOutput) -> None:
        self._services = services
        self._on_output = on_output
        self._open: dict[Gatherer, tuple[Asked, Generation]] = {}
        self._outputs: dict[Gatherer, RequestOutput | None] = {}  # in the order of the requests
        self._num_rows = 0
        self._num_tokens = 0
        self._changed = asyncio.Event()
        self._error: Exception | None = None

    async def run(self, batch: list[Asked]) -> list[RequestOutput]:
        """The outputs in the order of the requests. The first error, an `ApiError` or `InvalidField`, ends all."""
        try:
            for asked in batch:
                await self._until(partial(self._has_room, asked))
                await self._start(asked)
            await self._until(lambda: not self._open)
        finally:
            for _, generation in self._open.values():
                generation.cancel()
        return [output for output in self._outputs.values() if output is not None]

    async def _until(self, holds: Callable[[], bool]) -> None:
        while self._error is None and not holds():
            self._changed.clear()
            await self._changed.wait()
        if self._error is not None:
            raise self._error

    def _has_room(self, asked: Asked) -> bool:
        """A request that alone is over a limit is tried alone: the engine has the last word."""
        ready = self._services.engine.ready
        if not self._open or ready is None:
            return True
        num_rows = self._num_rows + asked.request.num_choices
        num_tokens = self._num_tokens + asked.num_tokens
        return num_rows <= ready.max_num_queued_reqs and num_tokens <= ready.max_num_queued_tokens

    async def _start(self, asked: Asked) -> None:
        gatherer = Gatherer(asked.prompt, asked.request.num_choices, self._on_change)
        while True:
            try:
                generation = start_generation(self._services, asked.request, gatherer)
                break
            except ApiError as error:
                if error.status != 429:  # full by a heartbeat that is older than our own count
                    raise
            await asyncio.sleep(_RETRY_S)
        self._open[gatherer] = (asked, generation)
        self._outputs[gatherer] = None
        self._num_rows += asked.request.num_choices
        self._num_tokens += asked.num_tokens

    def _on_change(self, gatherer: Gatherer) -> None:
        asked, generation = self._open.pop(gatherer)
        self._num_rows -= asked.request.num_choices
        self._num_tokens -= asked.num_tokens
        self._error = self._error or gatherer.error
        if gatherer.error is None:
            output = gatherer.output(generation, self._services.text.tokenizer)
            self._outputs[gatherer] = output
            self._on_output(output)
        self._changed.set()
