"""Flags of the front end, from the command line to what a client sees of them."""

import signal
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.helpers.server_process import DEADLINE_S, ServerProcess

FLAGS = {
    "--served-model-name": ("first", "second"),
    "--chat-template": ("{% for message in messages %}{{ message.content[0].text }}{% endfor %}",),
    "--chat-template-content-format": ("openai",),
    "--max-model-len": ("100",),
    "--max-n": ("2",),
    "--max-logprobs": ("3",),
    "--max-stop-strings": ("1",),
    "--max-stop-string-chars": ("4",),
    "--max-body-bytes": ("2KiB",),
    "--max-header-bytes": ("1KiB",),
    "--max-header-fields": ("20",),
    "--max-json-depth": ("4",),
    "--header-timeout": ("1",),
    "--body-timeout": ("1.5",),
    "--timeout-keep-alive": ("1",),
    "--metrics-prefix": ("vllm:",),
    "--allow-unknown-fields": (),
    "--disable-fastapi-docs": (),
}


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """With every one of them."""
    with ServerProcess(*(word for name, values in FLAGS.items() for word in (name, *values))) as server:
        yield server.wait_ready()


def complete(server: ServerProcess, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/completions", json={"prompt": "Once", "max_tokens": 1, **body})


def raw(server: ServerProcess, data: bytes) -> bytes:
    """All that comes back until the server closes."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), DEADLINE_S) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def test_a_model_has_all_its_names(server: ServerProcess) -> None:
    answer = httpx.get(f"{server.url}/v1/models").json()
    assert [(card["id"], card["max_model_len"]) for card in answer["data"]] == [("first", 100), ("second", 100)]
    assert complete(server, model="second").json()["model"] == "second"
    assert complete(server).json()["model"] == "first"
    assert complete(server, model="demo").status_code == 404


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        ({"n": 3}, "--max-n"),
        ({"logprobs": 4}, "3"),
        ({"stop": ["a", "b"]}, "1"),
        ({"stop": "abcde"}, "4"),
        ({"max_tokens": 100}, "100"),
        ({"user": [[[[1]]]]}, "--max-json-depth"),
    ],
)
def test_caps_of_a_request(server: ServerProcess, body: dict[str, Any], limit: str) -> None:
    refused = complete(server, **body)
    assert refused.status_code == 400
    assert limit in refused.json()["error"]["message"]


def test_sizes_and_times(server: ServerProcess) -> None:
    assert complete(server, prompt="x" * 2048).status_code == 413
    assert httpx.get(f"{server.url}/version", headers={"long": "x" * 1024}).status_code == 431
    assert httpx.get(f"{server.url}/version", headers={f"n{i}": "x" for i in range(20)}).status_code == 431
    assert b"408 Request Timeout" in (late := raw(server, b"GET /ver"))
    assert b"header did not arrive within 1 s" in late
    post = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{"
    assert b"body did not arrive within 1.5 s" in raw(server, post)


def test_an_idle_connection_is_closed(server: ServerProcess) -> None:
    kept = raw(server, b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n")  # the default would outlast the deadline
    assert kept.startswith(b"HTTP/1.1 200")
    assert b"connection: close" not in kept


def test_a_template_and_what_it_is_given(server: ServerProcess) -> None:
    asked = {"messages": [{"role": "user", "content": "as it is"}]}
    tokens = httpx.post(f"{server.url}/tokenize", json=asked).json()["tokens"]
    assert httpx.post(f"{server.url}/detokenize", json={"tokens": tokens}).json() == {"prompt": "as it is"}


def test_switches(server: ServerProcess) -> None:
    assert complete(server, colour="blue").status_code == 200
    assert httpx.get(f"{server.url}/docs").status_code == 404
    assert "\nvllm:num_requests_running" in httpx.get(f"{server.url}/metrics").text


@pytest.mark.parametrize(
    ("flags", "expected"),
    [((), True), (("--uvicorn-log-level", "warning"), False), (("--disable-uvicorn-access-log",), False)],
)
def test_each_request_has_a_line_in_the_log_unless_it_is_not_wanted(flags: tuple[str, ...], expected: bool) -> None:
    with ServerProcess(*flags) as server:
        httpx.get(f"{server.wait_ready().url}/version")
        server.signal(signal.SIGTERM)
        server.wait_for("every process has ended")
        assert ('"GET /version HTTP/1.1" 200' in server.log) == expected
