"""Signals to the supervisor: what open streams, new connections and the exit status say of them."""

import json
import signal
import time

import httpx
import pytest

from tests.helpers.server_process import ServerProcess, all_gone
from tests.helpers.stream_reader import streaming


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_server_ends_in_order(number: signal.Signals) -> None:
    with ServerProcess("--api-server-count", "2") as server, httpx.Client() as kept:
        server.wait_ready()
        assert kept.get(f"{server.url}/readyz").status_code == 200
        children = server.children()
        server.signal(number)
        assert server.wait(within_s=5) == 0
        assert all_gone(children)
        assert list(server.run_dirs.iterdir()) == []
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/livez")


def test_open_streams_end_normally() -> None:
    with ServerProcess("--api-server-count", "2", step_ms=20) as server:
        server.wait_ready()
        with streaming(server.url, 8, max_tokens=60) as readers:
            server.signal(signal.SIGTERM)
            server.wait_for("draining")
            _wait_refused(server.url)
        assert server.wait() == 0
        assert all(reader.ended_normally for reader in readers)


def test_what_is_not_done_in_time_gets_an_error_event() -> None:
    with ServerProcess("--shutdown-timeout", "0.5", step_ms=50) as server:
        server.wait_ready()
        with streaming(server.url, 2, max_tokens=1500) as readers:
            server.signal(signal.SIGTERM)
        assert server.wait(within_s=5) == 0
        for reader in readers:
            assert reader.error is None
            assert "error" in json.loads(reader.events[-1])


def test_a_second_signal_ends_at_once() -> None:
    with ServerProcess("--api-server-count", "2", step_ms=50) as server:
        server.wait_ready()
        children = server.children()
        with streaming(server.url, 2, max_tokens=1500) as readers:
            server.signal(signal.SIGTERM)
            server.wait_for("draining")
            began = time.monotonic()
            server.signal(signal.SIGINT)
            assert server.wait(within_s=5) == 128 + signal.SIGINT
            assert time.monotonic() - began < 2
        assert all(reader.error is not None for reader in readers)
        assert all_gone(children)
        assert list(server.run_dirs.iterdir()) == []


def _wait_refused(url: str) -> None:
    deadline = time.monotonic() + 5
    while True:
        try:
            answer = httpx.get(f"{url}/v1/models")
        except httpx.TransportError:
            return
        assert answer.status_code == 503
        assert answer.headers["connection"] == "close"
        assert time.monotonic() < deadline
