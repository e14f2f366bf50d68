"""The HTTP surface of one API server beside a fake engine: a real uvicorn on loopback, on the test's own event loop."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn

from frontend.app import build_app
from frontend.gate import Gate
from frontend.services import Services
from frontend.settings import Settings
from tests.helpers.fake_engine import FakeEngine
from tests.helpers.serving import DEADLINE_S, serving

MODEL = "fake"


@dataclass(frozen=True, kw_only=True)
class HttpServer:
    """A ready server and what is behind it."""

    services: Services
    engine: FakeEngine
    gate: Gate
    url: str
    client: httpx.AsyncClient

    async def post(self, path: str, **body: Any) -> httpx.Response:
        return await self.client.post(path, json=body)

    async def chat(self, **body: Any) -> dict[str, Any]:
        """A whole answer to one user message, unless the body says otherwise."""
        response = await self.post("/v1/chat/completions", **({"messages": [USER]} | body))
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def complete(self, **body: Any) -> dict[str, Any]:
        """A whole answer to a prompt of three ids, unless the body says otherwise."""
        response = await self.post("/v1/completions", **({"prompt": [5, 6, 7]} | body))
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def events(self, path: str, **body: Any) -> list[Any]:
        """The data of every event of a stream; "[DONE]" stays a string."""
        response = await self.post(path, **(body | {"stream": True}))
        assert response.status_code == 200, response.text
        return parse_events(response.text)


USER = {"role": "user", "content": "Say something."}


def parse_events(text: str) -> list[Any]:
    """The data lines, decoded."""
    data = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    return [item if item == "[DONE]" else json.loads(item) for item in data]


@asynccontextmanager
async def http_serving(
    tokenizer_dir: str, *, settings: Settings | None = None, **engine_options: Any
) -> AsyncIterator[HttpServer]:
    """Ready, on a free port."""
    chosen = settings or Settings(model=MODEL)
    async with serving(tokenizer_dir, settings=chosen, **engine_options) as (services, engine):
        gate = Gate(services)
        gate.app = build_app(services)
        async with run_uvicorn(gate) as url, httpx.AsyncClient(base_url=url, timeout=DEADLINE_S) as client:
            yield HttpServer(services=services, engine=engine, gate=gate, url=url, client=client)


@asynccontextmanager
async def run_uvicorn(app: Any) -> AsyncIterator[str]:
    """An ASGI application on loopback; its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, ws="none")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve([listener]))  # serve() would take the test's signals
    try:
        async with asyncio.timeout(DEADLINE_S):
            while not server.started:
                await asyncio.sleep(0.002)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
