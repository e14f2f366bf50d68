"""What happens to everybody else when one process dies."""

import json
import signal
import time

import httpx
import psutil

from protocol.process import ExitStatus
from tests.helpers.server_process import DEADLINE_S, ServerProcess, all_gone, eventually
from tests.helpers.stream_reader import StreamReader, streaming

SERVER_S = 1.5  # a new API server serves within this
BUSY = 2  # times as long on a machine that does much else


def num_connections(process: psutil.Process) -> int:
    return sum(c.status == psutil.CONN_ESTABLISHED for c in process.net_connections("tcp"))


def test_a_killed_api_server_is_replaced_and_hurts_nobody_else() -> None:
    with ServerProcess("--api-server-count", "2", step_ms=20) as server:
        server.wait_ready()
        with streaming(server.url, 8, max_tokens=150) as readers:
            victim, other = server.api_server(0), server.api_server(1)
            while not (num_connections(victim) and num_connections(other)):  # one of them woke late, time after time
                readers.append(StreamReader(server.url, max_tokens=150))
                assert readers[-1].has_begun.wait(DEADLINE_S)
            num_lost = num_connections(victim)
            victim.kill()
            died = time.monotonic()
            assert httpx.get(f"{server.url}/readyz").status_code == 200
            server.wait_for("API server 0: ready", count=2)
            assert time.monotonic() - died < SERVER_S * BUSY
            assert "killed by SIGKILL" in server.wait_for("API server 0 ended")
            assert server.api_server(0).pid != victim.pid
        assert sum(reader.ended_normally for reader in readers) == len(readers) - num_lost
        assert sum(reader.error is not None for reader in readers) == num_lost
        server.signal(signal.SIGTERM)
        assert server.wait() == 0


def test_an_api_server_that_is_told_to_end_drains_and_is_replaced() -> None:
    with ServerProcess("--api-server-count", "2", step_ms=20) as server:
        server.wait_ready()
        with streaming(server.url, 4, max_tokens=100) as readers:
            server.api_server(0).terminate()
            server.wait_for("API server 0: ready", count=2)
        assert all(reader.ended_normally for reader in readers)
        assert "exit status 0" in server.wait_for("API server 0 ended")


def test_a_dead_engine_ends_the_server_with_its_cause() -> None:
    with ServerProcess("--api-server-count", "2", step_ms=50) as server:
        server.wait_ready()
        children = server.children()
        with streaming(server.url, 4, max_tokens=1500) as readers:
            server.engine().kill()
            server.wait_for("engine core 0 ended: killed by SIGKILL")
            server.signal(signal.SIGTERM)  # comes too late to make it a success
            assert server.wait(within_s=10) == ExitStatus.ENGINE_GONE
        assert server.log.count("killed by SIGKILL") == 1
        for reader in readers:
            if reader.error is None:
                assert "error" in json.loads(reader.events[-1])
        assert all_gone(children)


def test_an_engine_ignores_what_its_supervisor_did_not_say() -> None:
    with ServerProcess() as server:
        server.wait_ready()
        engine = server.engine()
        engine.send_signal(signal.SIGTERM)
        engine.send_signal(signal.SIGINT)
        reader = StreamReader(server.url, max_tokens=20)
        reader.join()
        assert reader.ended_normally
        assert server.engine().pid == engine.pid


def test_without_a_supervisor_every_child_ends_and_the_next_start_cleans_up() -> None:
    with ServerProcess("--api-server-count", "2") as server:
        children = server.wait_ready().children()
        assert len(children) == 3
        server.signal(signal.SIGKILL)
        server.wait()
        eventually(lambda: all_gone(children), "all children gone", within_s=2)
        (stale,) = server.run_dirs.iterdir()
        with ServerProcess(run_dirs=server.run_dirs) as successor:
            successor.wait_for("engine core 0: ready")
            assert not stale.exists()
            assert len(list(server.run_dirs.iterdir())) == 1


def test_a_second_server_leaves_the_first_ones_run_directory_alone() -> None:
    with ServerProcess() as server:
        server.wait_ready()
        before = sorted(next(server.run_dirs.iterdir()).iterdir())
        with ServerProcess(engine="tests.helpers.failing_engine:exits", run_dirs=server.run_dirs) as second:
            assert second.wait() == ExitStatus.ENGINE_GONE
            (left,) = server.run_dirs.iterdir()
            assert sorted(left.iterdir()) == before
