"""From the command to the ready line: what the server says, serves and refuses while it starts."""

import signal
import socket
import time
from pathlib import Path

import httpx
import psutil
import pytest

from protocol.process import ExitStatus
from tests.helpers.failing_engine import EXIT_STATUS, REFUSAL
from tests.helpers.server_process import ServerProcess, all_gone, eventually

FAILING = "tests.helpers.failing_engine"


def ipv6_works() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_answers_before_the_engine_is_ready() -> None:
    began = time.monotonic()
    with ServerProcess("--api-server-count", "2", engine=f"{FAILING}:loading") as server:
        assert httpx.get(f"{server.url}/livez").status_code == 200
        assert time.monotonic() - began < 5  # a second, but for the tests beside this one
        for path in ("/readyz", "/health", "/v1/models"):
            answer = httpx.get(server.url + path)
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "starting"
            assert int(answer.headers["retry-after"]) >= 1
        assert "ready at" not in server.log
        children = server.children()
        server.signal(signal.SIGTERM)
        assert server.wait(within_s=10) == 0
        assert all_gone(children)
        assert list(server.run_dirs.iterdir()) == []


def test_says_when_it_is_ready() -> None:
    with ServerProcess("--api-server-count", "2") as server:
        assert server.wait_ready().wait_for("ready at ").strip().split(" after ")[0].endswith(server.url)
        assert httpx.get(f"{server.url}/readyz").status_code == 200
        for process in ("model: ", "engine core 0: ", "API server 0: ", "API server 1: "):
            assert " s" in server.wait_for(process)
        assert f"curl {server.url}/v1/chat/completions" in server.log


def test_supervisor_and_api_servers_are_light() -> None:
    with ServerProcess() as server:
        server.wait_ready()
        supervisor, api_server = psutil.Process(server.pid), server.api_server(0)
        assert supervisor.memory_info().rss <= 70e6
        assert api_server.memory_info().rss <= 120e6
        assert api_server.memory_full_info().pss <= 100e6
        for process in (supervisor, api_server):
            assert not any("torch" in mapped.path for mapped in process.memory_maps())


def test_a_taken_port_is_said_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with ServerProcess(listen=("--host", "127.0.0.1", "--port", port)) as server:
            assert server.wait() == ExitStatus.CANNOT_START
            assert f"port {port} is taken on 127.0.0.1" in server.log
            assert "Traceback" not in server.log


def test_an_engine_that_refuses_ends_the_server_with_its_sentence() -> None:
    with ServerProcess(engine=f"{FAILING}:refuses") as server:
        assert server.wait() == ExitStatus.CANNOT_START
        assert server.log.count(REFUSAL) == 1


def test_an_engine_that_dies_while_loading_ends_the_server() -> None:
    with ServerProcess(engine=f"{FAILING}:exits") as server:
        assert server.wait() == ExitStatus.ENGINE_GONE
        assert f"engine core 0 ended: exit status {EXIT_STATUS}" in server.log


def test_a_model_that_is_not_there_ends_the_server_with_one_sentence() -> None:
    with ServerProcess("--tokenizer", "./nowhere") as server:
        assert server.wait() == ExitStatus.WRONG_SETTINGS
        assert server.log.count("./nowhere") == 1
        assert "Traceback" not in server.log


def test_a_wrong_chat_template_ends_the_server_with_one_sentence() -> None:
    with ServerProcess("--chat-template", "{% if %}", "--api-server-count", "1") as server:
        assert server.wait() == ExitStatus.WRONG_SETTINGS
        assert "Traceback" not in server.log


def test_api_servers_that_never_become_ready_end_the_server() -> None:
    with ServerProcess(engine=f"{FAILING}:loading") as server:
        killed: set[int] = set()
        for _ in range(5):
            victim = eventually(
                lambda: next((c for c in [server.api_server(0)] if c.pid not in killed), None), "a new one"
            )
            killed.add(victim.pid)
            victim.kill()
        assert server.wait() == ExitStatus.API_SERVERS_GONE


def test_decoys_where_the_user_stands_are_not_taken(tmp_path: Path) -> None:
    decoys = tmp_path / "decoys"
    for name in ("engine", "frontend", "protocol"):
        (decoys / name).mkdir(parents=True)
        (decoys / name / "__init__.py").write_text("raise SystemExit('decoy')")
        (decoys / f"{name}.py").write_text("raise SystemExit('decoy')")
    with ServerProcess(cwd=decoys) as server:
        server.wait_ready()
        assert "decoy" not in server.log


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "headrace.sock"
    with socket.socket(socket.AF_UNIX) as dead_server:
        dead_server.bind(str(path))  # its file stays, as after a SIGKILL
    with ServerProcess(listen=("--uds", str(path))) as server:
        server.wait_ready()
        assert server.url == f"unix:{path}"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            assert client.get("http://localhost/readyz").status_code == 200
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert not path.exists()


@pytest.mark.skipif(not ipv6_works(), reason="this machine has no IPv6")
def test_ipv6_and_all_interfaces() -> None:
    with ServerProcess(listen=("--host", "::1", "--port", "0")) as server:
        assert server.url.startswith("http://[::1]:")
        assert httpx.get(f"{server.url}/livez").status_code == 200
    with ServerProcess(listen=("--port", "0")) as server:
        port = server.url.rpartition(":")[2]
        assert "--host 127.0.0.1" in server.wait_for("other machines")
        for host in ("127.0.0.1", "[::1]"):
            assert httpx.get(f"http://{host}:{port}/livez").status_code == 200
