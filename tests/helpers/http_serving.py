"""The HTTP surface of one API server beside a fake engine: a real uvicorn on loopback, in a thread of its own."""

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import uvicorn

from frontend.app import build_app
from frontend.gate import Gate
from frontend.services import Services
from frontend.settings import Settings
from tests.helpers.fake_engine import FakeEngine
from tests.helpers.serving import DEADLINE_S, serving, until

MODEL = "fake"
USER = {"role": "user", "content": "Say something."}


@dataclass(kw_only=True)
class HttpServer:
    """A ready server and what is behind it. Its services belong to its own thread: tests only look at them."""

    services: Services
    engine: FakeEngine
    gate: Gate
    url: str
    client: httpx.Client
    loop: asyncio.AbstractEventLoop

    @property
    def openai(self) -> Any:
        """The official client. Untyped here: its overloads want literals where these tests pass what they are given."""
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=DEADLINE_S)

    def post(self, path: str, **body: Any) -> httpx.Response:
        return self.client.post(path, json=body)

    def chat(self, **body: Any) -> Any:
        """A whole answer to one user message, unless the body says otherwise."""
        return _checked(self.post("/v1/chat/completions", **({"messages": [USER]} | body))).json()

    def complete(self, **body: Any) -> Any:
        """A whole answer to a prompt of three ids, unless the body says otherwise."""
        return _checked(self.post("/v1/completions", **({"prompt": [5, 6, 7]} | body))).json()

    def chat_events(self, **body: Any) -> list[Any]:
        """The data of each event of a stream; "[DONE]" stays a string."""
        return parse_events(
            _checked(self.post("/v1/chat/completions", **({"messages": [USER], "stream": True} | body))).text
        )

    def completion_events(self, **body: Any) -> list[Any]:
        return parse_events(
            _checked(self.post("/v1/completions", **({"prompt": [5, 6, 7], "stream": True} | body))).text
        )

    def wait_until(self, condition: Callable[[], bool]) -> None:
        asyncio.run(until(condition))

    def run_in_loop(self, work: Callable[[], None]) -> None:
        self.loop.call_soon_threadsafe(work)


def parse_events(text: str) -> list[Any]:
    """The data lines, decoded."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [item if item == "[DONE]" else json.loads(item) for item in data]


def _checked(response: httpx.Response) -> httpx.Response:
    assert response.status_code == 200, response.text
    return response


@contextmanager
def http_serving(
    tokenizer_dir: str, *, settings: Settings | None = None, **engine_options: Any
) -> Iterator[HttpServer]:
    """Ready, on a free port."""
    thread = _ServerThread(tokenizer_dir, settings or Settings(model=MODEL), engine_options)
    server = thread.begin()
    try:
        with server.client:
            yield server
    finally:
        thread.end()


class _ServerThread:
    def __init__(self, tokenizer_dir: str, settings: Settings, engine_options: dict[str, Any]) -> None:
        self._tokenizer_dir = tokenizer_dir
        self._settings = settings
        self._engine_options = engine_options
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="http-server")
        self._server: HttpServer | None = None

    def begin(self) -> HttpServer:
        self._thread.start()
        assert self._started.wait(DEADLINE_S)
        assert self._server is not None
        return self._server

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    async def _serve(self) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        async with serving(self._tokenizer_dir, settings=self._settings, **self._engine_options) as (services, engine):
            gate = Gate(services)
            gate.app = build_app(services)
            listener = socket.create_server(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            uvicorn_server = uvicorn.Server(uvicorn.Config(gate, log_level="warning", timeout_graceful_shutdown=1))
            task = asyncio.create_task(uvicorn_server._serve([listener]))  # serve() would take the test's signals
            await until(lambda: uvicorn_server.started)
            client = httpx.Client(base_url=url, timeout=DEADLINE_S)
            self._server = HttpServer(
                services=services, engine=engine, gate=gate, url=url, client=client, loop=self._loop
            )
            self._started.set()
            await self._ending.wait()
            uvicorn_server.should_exit = True
            await task
