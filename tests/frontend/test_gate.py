"""What is answered before the app is built, and the lifespan protocol."""

import asyncio
from typing import Any

import httpx
import pytest

from frontend.gate import Gate
from tests.helpers.serving import make_services


async def get(gate: Gate, path: str, method: str = "GET") -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=gate), base_url="http://test") as client:
        return await client.request(method, path)


@pytest.mark.parametrize("path", ["/readyz", "/health", "/ping", "/metrics", "/v1/chat/completions", "/anything"])
def test_all_but_livez_is_503_while_starting(path: str) -> None:
    async def scenario() -> None:
        services = make_services()
        response = await get(Gate(services), path)
        services.close()
        error = response.json()["error"]
        assert (response.status_code, error["code"], error["type"]) == (503, "starting", "server_error")
        assert int(response.headers["retry-after"]) >= 1
        assert "connection" not in response.headers

    asyncio.run(scenario())


def test_the_process_is_live_from_the_start() -> None:
    async def scenario() -> None:
        services = make_services()
        gate = Gate(services)
        assert (await get(gate, "/livez")).status_code == 200
        assert (await get(gate, "/livez", "HEAD")).status_code == 200
        wrong = await get(gate, "/livez", "POST")
        assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET, HEAD")
        services.close()

    asyncio.run(scenario())


def test_a_drain_that_comes_before_readiness_is_told() -> None:
    async def scenario() -> None:
        services = make_services()
        gate = Gate(services)
        services.begin_drain()
        assert (await get(gate, "/readyz")).json()["error"]["code"] == "draining"
        assert (await get(gate, "/v1/models")).status_code == 503
        services.close()

    asyncio.run(scenario())


def test_once_built_the_app_answers_and_probes_stay() -> None:
    async def scenario() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        services = make_services()
        gate = Gate(services)
        gate.app = app
        assert (await get(gate, "/anything")).status_code == 204
        assert (await get(gate, "/readyz")).status_code == 503  # no engine yet
        assert (await get(gate, "/livez")).status_code == 200
        services.close()

    asyncio.run(scenario())


def test_lifespan_is_completed() -> None:
    async def scenario() -> None:
        services = make_services()
        events = iter(["lifespan.startup", "lifespan.shutdown"])
        sent: list[Any] = []

        async def receive() -> dict[str, str]:
            return {"type": next(events)}

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await Gate(services)({"type": "lifespan"}, receive, send)
        services.close()
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]

    asyncio.run(scenario())
