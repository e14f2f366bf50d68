"""Clients that leave, and failures after a stream has begun: one way to stop, never a silent end."""

import json
import socket
import struct
from contextlib import suppress
from typing import Any

import pytest

from protocol.scoreboard import State
from tests.helpers.fake_engine import Refusal
from tests.helpers.http_serving import USER, HttpServer
from tests.helpers.serving import DEADLINE_S


def send_request(server: HttpServer, path: str, **body: Any) -> socket.socket:
    """A request on a connection of its own, its answer not read."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), DEADLINE_S)
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["close", "reset"])
@pytest.mark.parametrize("paused", [False, True], ids=["running", "waiting"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_leaves_is_one_abort(server: HttpServer, stream: bool, paused: bool, leave: Any) -> None:
    engine = server.engine
    aborts, submits = len(engine.aborts), len(engine.submits)
    engine.paused = paused
    connection = send_request(server, "/v1/completions", prompt=["a", "b"], n=2, max_tokens=2000, stream=stream)
    server.wait_until(lambda: len(engine.submits) == submits + 2)
    server.wait_until(lambda: engine.num_open_rows == 4)
    if stream and not paused:
        assert connection.recv(1) == b"H"
    leave(connection)
    server.wait_until(lambda: len(engine.aborts) == aborts + 4)
    assert server.services.num_open == 0
    engine.paused = False
    server.wait_until(lambda: engine.num_open_rows == 0)


def test_two_hundred_clients_that_leave_at_any_time_leave_nothing(server: HttpServer) -> None:
    for index in range(200):
        connection = send_request(
            server, "/v1/chat/completions", messages=[USER], max_tokens=1 + index % 30, stream=index % 2 == 0
        )
        if index % 3 == 0:
            connection.settimeout(0.001 + 0.002 * (index % 7))
            with suppress(TimeoutError):
                connection.recv(4096)
        reset(connection)
    server.wait_until(lambda: server.services.num_open == 0 and server.engine.num_open_rows == 0)
    assert server.complete(max_tokens=2)["usage"]["completion_tokens"] == 2


def test_a_refusal_by_the_engine_keeps_its_status(server: HttpServer) -> None:
    server.engine.refusal = Refusal(code="overloaded", retry_after_s=3.0)
    for stream in (False, True):
        response = server.post("/v1/chat/completions", messages=[USER], stream=stream)
        assert (response.status_code, response.headers["retry-after"]) == (429, "3")
        assert response.json()["error"]["type"] == "rate_limit_error"
    server.engine.refusal = Refusal(code="internal")
    assert server.post("/v1/chat/completions", messages=[USER]).status_code == 500


def test_full_is_429_before_the_prompt_is_looked_at(server: HttpServer) -> None:
    server.engine.num_waiting = 64
    server.wait_until(lambda: server.services.engine.heartbeat.num_waiting == 64)  # type: ignore[union-attr]
    submits = len(server.engine.submits)
    response = server.post("/v1/completions", prompt=[], max_tokens=1)
    assert response.status_code == 429
    assert len(server.engine.submits) == submits
    server.engine.num_waiting = 0
    server.wait_until(lambda: server.services.engine.heartbeat.num_waiting == 0)  # type: ignore[union-attr]


def test_a_failure_after_the_first_event_is_an_error_event(server: HttpServer) -> None:
    body = {"messages": [USER], "stream": True, "max_tokens": 2000}
    with server.client.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        assert next(lines).startswith("data: ")
        server.run_in_loop(lambda: server.services.fail_open_requests("the drain's time is over"))
        rest = [line for line in lines if line]
    assert rest[-2] == "event: error"
    error = json.loads(rest[-1].removeprefix("data: "))["error"]
    assert (error["type"], error["message"]) == ("server_error", "the drain's time is over")


def test_draining_refuses_new_requests_and_closes_their_connections(server: HttpServer) -> None:
    supervisor = server.services.scoreboard.supervisor
    body = {"messages": [USER], "stream": True, "max_tokens": 30}
    with server.client.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        supervisor.set("state", State.DRAINING)
        refused = server.post("/v1/chat/completions", messages=[USER])
        ready = server.client.get("/readyz")
        rest = [line for line in lines if line]
    statuses = [server.client.get(path).status_code for path in ("/livez", "/health", "/load")]
    supervisor.set("state", State.READY)
    assert (refused.status_code, refused.headers["connection"]) == (503, "close")
    assert refused.headers["retry-after"]
    assert (refused.json()["error"]["code"], ready.json()["error"]["code"]) == ("draining", "draining")
    assert ready.status_code == 503
    assert statuses == [200, 200, 200]
    assert rest[-1] == "data: [DONE]"
    assert '"finish_reason":"length"' in rest[-2]


def test_a_bug_is_a_500_that_tells_nothing(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*args: Any, **options: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(server.services, "tokenize", broken)
    response = server.post("/v1/completions", prompt="x")
    assert (response.status_code, response.json()["error"]["type"]) == (500, "server_error")
    assert "secret" not in response.text
    assert "secret detail" in caplog.text
    monkeypatch.undo()
    assert server.complete(prompt="x", max_tokens=1)["usage"]["completion_tokens"] == 1
