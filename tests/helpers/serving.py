"""An API server's services beside a fake engine, on the test's own event loop: no process and no HTTP."""

import asyncio
import functools
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, ParamSpec

import uvloop

from frontend.request import Delta, GenerationRequest, Lane
from frontend.services import Services
from frontend.settings import Settings
from protocol.address import engine_address
from protocol.sampling import Sampling
from protocol.scoreboard import Scoreboard
from tests.helpers.fake_engine import FakeEngine

DEADLINE_S = 10.0
P = ParamSpec("P")


def on_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run an async test on the kind of event loop that API servers have."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        uvloop.run(test(*args, **kwargs))

    return run


@dataclass
class RecordingSink:
    """Remembers everything; what a test waits for is `done`."""

    deltas: list[Delta] = field(default_factory=list)
    ends: int = 0
    errors: list[Exception] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    def lane(self, choice: int) -> Lane:
        return Lane()

    def on_delta(self, delta: Delta) -> None:
        assert not self.done.is_set(), "a delta after the end"
        self.deltas.append(delta)
        self.grown.set()

    def on_end(self) -> None:
        self.ends += 1
        self.done.set()

    def on_error(self, error: Exception) -> None:
        self.errors.append(error)
        self.done.set()

    async def wait(self) -> None:
        await asyncio.wait_for(self.done.wait(), DEADLINE_S)

    async def wait_for_tokens(self, count: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while sum(len(delta.token_ids) for delta in self.deltas) < count:
                self.grown.clear()
                await self.grown.wait()

    def text(self, choice: int = 0) -> str:
        return "".join(delta.text for delta in self.deltas if delta.choice == choice)

    def token_ids(self, choice: int = 0) -> list[int]:
        return [token for delta in self.deltas if delta.choice == choice for token in delta.token_ids]

    def last(self, choice: int = 0) -> Delta:
        return [delta for delta in self.deltas if delta.choice == choice][-1]


def asked(
    prompt_ids: list[int] | None = None,
    *,
    max_tokens: int = 8,
    seed: int = 1,
    sampling: dict[str, Any] | None = None,
    **fields: Any,
) -> GenerationRequest:
    """A request of a few tokens."""
    chosen = Sampling(seed=seed, max_tokens=max_tokens, **(sampling or {}))
    return GenerationRequest(prompt_ids=prompt_ids or [5, 6, 7], sampling=chosen, **fields)


@asynccontextmanager
async def serving(
    tokenizer_dir: str, *, settings: Settings | None = None, **engine_options: Any
) -> AsyncIterator[tuple[Services, FakeEngine]]:
    """Services that are ready, and their engine."""
    run_dir = Path(mkdtemp(prefix="headrace-test-"))
    epoch = engine_options.pop("epoch", 0xE0C)
    address = engine_address(run_dir, 0, epoch)
    services = make_services(settings)
    try:
        with FakeEngine(address, epoch=epoch, tokenizer_dir=tokenizer_dir, **engine_options) as engine:
            services.engine.connect(0, epoch, address)
            await until_ready(services)
            yield services, engine
    finally:
        services.close()
        shutil.rmtree(run_dir)


def make_services(settings: Settings | None = None) -> Services:
    board = Scoreboard.create(num_api_servers=1, num_engines=1)
    return Services(settings or Settings(model="fake"), place=0, life=1, scoreboard=board)


async def until_ready(services: Services) -> None:
    async with asyncio.timeout(DEADLINE_S):
        await services.loaded()
        ready = asyncio.Event()
        services.engine.on_ready(ready.set)
        await ready.wait()


async def until(condition: Callable[[], bool]) -> None:
    """Poll; for what the fake engine's thread does, which no event of ours announces."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.002)
