"""A whole server on the benchmark's engine: `python -m scripts.frontend_bench.server PAGE [flags of serve]`."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from frontend.settings.parser import parse_settings
from frontend.supervisor import run
from protocol.scoreboard import Scoreboard

ROOT = Path(__file__).parents[2]
_DEADLINE_S = 120.0
_STOP_DEADLINE_S = 20.0
_URL = re.compile(r"listening on http://([^:]+):(\d+)")


class BenchServer:
    """What can be seen of it from outside."""

    def __init__(self, supervisor: psutil.Process, host: str, port: int, num_api_servers: int) -> None:
        self.host = host
        self.port = port
        children = {child.name(): child for child in supervisor.children()}
        self.api_servers = [children[f"headrace-api-{place}"] for place in range(num_api_servers)]
        self._board = _open_scoreboard(supervisor.pid)

    def cpu_s(self) -> list[float]:
        """CPU time of each API server so far, user and system."""
        times = [process.cpu_times() for process in self.api_servers]
        return [time.user + time.system for time in times]

    def in_flight(self) -> list[int]:
        """HTTP requests in flight at each API server."""
        return [row.get("in_flight") for _, row in self._board.api_rows()]

    def memory_mib(self) -> list[dict[str, float]]:
        """RSS, Pss and private memory of each API server."""
        facts = [process.memory_full_info() for process in self.api_servers]
        return [{name: round(getattr(fact, name) / 2**20, 1) for name in ("rss", "pss", "uss")} for fact in facts]


@contextlib.contextmanager
def running_server(page: Path, num_api_servers: int, flags: list[str]) -> Iterator[BenchServer]:
    """Ready, all API servers of it. Ended with SIGTERM."""
    command = [sys.executable, "-m", "scripts.frontend_bench.server", str(page), "demo"]
    command += ["--host", "127.0.0.1", "--port", "0", "--api-server-count", str(num_api_servers), *flags]
    with tempfile.NamedTemporaryFile("r", prefix="bench-frontend-", suffix=".log") as log:
        with Path(log.name).open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},  # noqa: TID251 - a child's environment
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            host, port = _wait_ready(process, Path(log.name), num_api_servers)
            yield BenchServer(psutil.Process(process.pid), host, port, num_api_servers)
        except BaseException:
            sys.stderr.write("\n".join(Path(log.name).read_text().splitlines()[-5:]) + "\n")
            raise
        finally:
            _end(process)


def _wait_ready(process: "subprocess.Popen[bytes]", log: Path, num_api_servers: int) -> tuple[str, int]:
    deadline = time.monotonic() + _DEADLINE_S
    while process.poll() is None and time.monotonic() < deadline:
        text = log.read_text()
        if all(f"API server {place}: ready" in text for place in range(num_api_servers)):
            found = _URL.search(text)
            assert found is not None  # it is said before anything is started
            return found[1], int(found[2])
        time.sleep(0.02)
    raise RuntimeError(f"the server is not ready (exit status {process.poll()})")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _open_scoreboard(supervisor_pid: int) -> Scoreboard:
    for entry in Path(f"/proc/{supervisor_pid}/fd").iterdir():
        if "headrace-scoreboard" in os.readlink(entry):
            return Scoreboard(os.open(entry, os.O_RDWR))
    raise RuntimeError("the supervisor has no scoreboard")


if __name__ == "__main__":
    sys.exit(
        run(
            parse_settings(sys.argv[2:]),
            engine_command=[sys.executable, "-P", "-m", "scripts.frontend_bench.engine", sys.argv[1]],
        )
    )
