"""A whole server in processes of its own, as a user would start it, and what can be seen of it from outside."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
FAKE_MODEL = "tests.helpers.fake_model_engine"
DEADLINE_S = 30.0


def eventually(holds: Callable[[], Any], what: str, *, within_s: float = DEADLINE_S) -> Any:
    """Wait until `holds()` is truthy and return it; fail after the deadline."""
    deadline = time.monotonic() + within_s
    while not (result := holds()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.01)
    return result


class ServerProcess:
    """Started by `with`, ended with it. `engine` is a module, or module:mode, or None for the product's own."""

    def __init__(
        self,
        *arguments: str,
        engine: str | None = FAKE_MODEL,
        step_ms: float = 1,
        cwd: Path = ROOT,
        run_dirs: Path | None = None,
        listen: tuple[str, ...] = ("--host", "127.0.0.1", "--port", "0"),
    ) -> None:
        self._owns_run_dirs = run_dirs is None
        self.run_dirs = run_dirs or Path(tempfile.mkdtemp(prefix="headrace-test-"))  # pytest's have too long a path
        program = ["-m", "headrace", "serve"] if engine is None else [str(ROOT / "tests/helpers/serve_with.py"), engine]
        self._command = [sys.executable, "-P", *program, "demo", *listen, *arguments]
        self._cwd = cwd
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "XDG_RUNTIME_DIR": str(self.run_dirs),
        }
        if engine is not None:
            self._environment["HEADRACE_FAKE_STEP_MS"] = str(step_ms)
        self._lines: list[str] = []
        self._ended = False
        self._news = threading.Condition()

    def __enter__(self) -> "ServerProcess":
        self._process = subprocess.Popen(
            self._command, cwd=self._cwd, env=self._environment, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        children = self.children()
        self._process.kill()
        self._process.wait()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        self._reader.join(DEADLINE_S)
        if self._process.stderr is not None:
            self._process.stderr.close()
        if self._owns_run_dirs:
            shutil.rmtree(self.run_dirs, ignore_errors=True)
        if error is not None:
            sys.stderr.write(self.log)

    # --- what it says ------------------------------------------------------------------------------------------------

    @property
    def log(self) -> str:
        """All that it and its children wrote to standard error."""
        return "".join(self._lines)

    def wait_for(self, text: str, *, count: int = 1, within_s: float = DEADLINE_S) -> str:
        """The `count`th line of the log that holds `text`."""

        def found() -> str | None:
            lines = [line for line in self._lines if text in line]
            return lines[count - 1] if len(lines) >= count else None

        with self._news:
            assert self._news.wait_for(lambda: found() or self._ended, within_s), (
                f"no line with {text!r} within {within_s} s"
            )
        line = found()
        assert line is not None, f"it ended without a line with {text!r}"
        return line

    @property
    def url(self) -> str:
        """Where it listens, as it says itself."""
        return self.wait_for("listening on ").split("listening on ")[1].strip()

    def wait_ready(self) -> "ServerProcess":
        """Until it says that all its API servers are ready."""
        count = int(self._command[self._command.index("--api-server-count") + 1]) if self._has_count else 1
        for place in range(count):
            self.wait_for(f"API server {place}: ready")
        self.wait_for("ready at ")
        return self

    @property
    def _has_count(self) -> bool:
        return "--api-server-count" in self._command

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    # --- its processes -----------------------------------------------------------------------------------------------

    def signal(self, number: signal.Signals) -> None:
        """To the supervisor."""
        self._process.send_signal(number)

    def wait(self, *, within_s: float = DEADLINE_S) -> int:
        """The exit status."""
        return self._process.wait(within_s)

    def children(self) -> list[psutil.Process]:
        """All its children that live."""
        try:
            return [child for child in psutil.Process(self.pid).children(recursive=True) if child.is_running()]
        except psutil.NoSuchProcess:
            return []

    def api_server(self, place: int) -> psutil.Process:
        """The one that lives at the place."""
        name = f"headrace-api-{place}"
        found: psutil.Process = eventually(
            lambda: next((child for child in self.children() if _name(child) == name), None), name
        )
        return found

    def engine(self) -> psutil.Process:
        """Its engine core."""

        def find() -> psutil.Process | None:
            return next((c for c in self.children() if "engine" in " ".join(_cmdline(c))), None)

        found: psutil.Process = eventually(find, "an engine core")
        return found


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return ""


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def all_gone(processes: list[psutil.Process]) -> bool:
    """Whether none of them lives (one that waits to be reaped does not)."""
    return not any(_lives(process) for process in processes)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
