"""One child as its supervisor sees it: a process in its own session, a control channel, and an end that is reaped."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from frontend.supervisor.errors import StartError
from protocol.process import CannotStart, ExitStatus, FromChild, ToChild, control_pair, receive_from_child, send_control

logger = logging.getLogger("headrace.supervisor")


class Child:
    """Made by `spawn`. Dead is only what `reap` has reaped."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        self.name = name
        self.pid = process.pid
        self.began = time.monotonic()
        self.channel = channel
        self.end_fd = _end_fd(process.pid)
        self.is_open = True  # False once it closed its end of the channel
        self.is_ready = False
        self.refusal: CannotStart | None = None  # why it ends, in its own words
        self._process = process

    def send(self, message: ToChild) -> None:
        """Tell the child. One that is gone or does not read is dealt with by whoever waits for its end."""
        try:
            send_control(self.channel, message)
        except OSError as error:
            logger.debug("%s was not told %s: %s", self.name, type(message).__name__, error)

    def messages(self) -> Iterator[FromChild]:
        """What the child has said since the last call."""
        with contextlib.suppress(BlockingIOError):
            while message := self._receive():
                yield message
            self.is_open = False

    def _receive(self) -> FromChild | None:
        try:
            return receive_from_child(self.channel)
        except ConnectionResetError:  # it ended with messages of ours unread
            return None

    def kill(self) -> None:
        """SIGKILL for the child and whatever it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> int:
        """Wait for the end, give everything back; the status as `subprocess` has it: negative for a signal."""
        status = self._process.wait()
        os.close(self.end_fd)
        self.channel.close()
        return status


def spawn(
    command: Sequence[str],
    *,
    name: str,
    launch: Callable[[int], bytes],
    environment: Mapping[str, str],
    pass_fds: Sequence[int] = (),
    stdout: int | None = None,
) -> Child:
    """Start a child; `launch` makes its standard input, given the number of its control channel. Raises `StartError`.

    Only from the main thread: a child's PR_SET_PDEATHSIG fires when the thread that forked it ends (tried).
    """
    ours, theirs = control_pair()
    ours.settimeout(0)
    try:
        with theirs, _as_file(launch(theirs.fileno())) as stdin:
            process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=stdout,
                pass_fds=(*pass_fds, theirs.fileno()),
                env=environment,
                start_new_session=True,
            )
    except OSError as error:
        ours.close()
        raise StartError(ExitStatus.CANNOT_START, f"{name} cannot be started: {error}") from None
    return Child(name, process, ours)


def describe_end(status: int) -> str:
    """In words: what `Child.reap` returned."""
    if status >= 0:
        return f"exit status {status}"
    if status == -signal.SIGKILL:
        return "killed by SIGKILL: from outside, or by the kernel for want of memory"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


@contextlib.contextmanager
def _as_file(data: bytes) -> Iterator[int]:
    """A memory file rather than a pipe: writing to it never waits for a reader."""
    fd = os.memfd_create("headrace-launch", os.MFD_CLOEXEC)
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def _end_fd(pid: int) -> int:
    """A descriptor that becomes readable when the process ends."""
    try:
        return os.pidfd_open(pid)
    except OSError:  # a sandbox without this system call
        reader, writer = os.pipe2(os.O_CLOEXEC)
        threading.Thread(target=_close_at_end, args=(pid, writer), name=f"wait-{pid}", daemon=True).start()
        return reader


def _close_at_end(pid: int, writer: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    os.close(writer)
