"""One child: what it says and how it ends, with and without pidfd_open."""

import errno
import os
import signal
import sys
import time
from collections.abc import Iterator

import pytest

from frontend.supervisor.child import Child, describe_end, spawn
from frontend.supervisor.errors import StartError
from frontend.supervisor.signals import SignalNotes
from frontend.supervisor.watch import Ended, Event, Said, Signalled, Watch
from protocol.process import CannotStart, Drain, PhaseDone, Stop

DEADLINE_S = 10.0

_PREAMBLE = """
import os, signal, socket, sys, time
from protocol.process import *
control = socket.socket(fileno=int(sys.stdin.read()))
"""
_ROOT = os.getcwd()


def start(code: str) -> Child:
    return spawn(
        [sys.executable, "-c", _PREAMBLE + code],
        name="child",
        launch=lambda control_fd: str(control_fd).encode(),
        environment={**os.environ, "PYTHONPATH": _ROOT},
    )


def events_until_end(child: Child, watch: Watch) -> list[Event]:
    watch.add(child)
    events: list[Event] = []
    deadline = time.monotonic() + DEADLINE_S
    while not any(isinstance(event, Ended) for event in events):
        assert time.monotonic() < deadline
        events += watch.wait(0.1)
    return events


@pytest.fixture(params=["pidfd", "thread"])
def watch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    if request.param == "thread":

        def missing(pid: int) -> int:
            raise OSError(errno.ENOSYS, "no such system call")

        monkeypatch.setattr(os, "pidfd_open", missing)
    with SignalNotes() as signals:
        watch = Watch(signals)
        yield watch
        watch.close()


def test_its_last_words_come_before_its_end(watch: Watch) -> None:
    child = start(
        "send_control(control, PhaseDone(phase='one', seconds=1.0))\n"
        "send_control(control, CannotStart(status=2, sentence='why'))\n"
        "sys.exit(2)"
    )
    events = events_until_end(child, watch)
    assert events == [
        Said(child, PhaseDone(phase="one", seconds=1.0)),
        Said(child, CannotStart(status=2, sentence="why")),
        Ended(child, 2),
    ]
    assert watch.children == []


def test_one_that_closes_its_channel_first_is_still_waited_for(watch: Watch) -> None:
    child = start("control.close(); time.sleep(0.2); sys.exit(5)")
    assert events_until_end(child, watch) == [Ended(child, 5)]


def test_killing_ends_also_what_it_started(watch: Watch) -> None:
    child = start(
        "import subprocess\n"
        "other = subprocess.Popen(['sleep', '1000'])\n"
        "send_control(control, PhaseDone(phase=str(other.pid), seconds=0.0))\n"
        "time.sleep(1000)"
    )
    watch.add(child)
    (said,) = watch.wait(DEADLINE_S)
    assert isinstance(said, Said) and isinstance(said.message, PhaseDone)
    child.kill()
    while not (ended := watch.wait(DEADLINE_S)):
        pass
    assert ended == [Ended(child, -signal.SIGKILL)]
    deadline = time.monotonic() + DEADLINE_S
    while _runs(int(said.message.phase)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_hears_what_it_is_told(watch: Watch) -> None:
    child = start(
        "assert receive_to_child(control) == Drain(timeout_s=3.0)\n"
        "assert receive_to_child(control) == Stop()\n"
        "sys.exit(0 if os.getsid(0) == os.getpid() else 1)"
    )
    child.send(Drain(timeout_s=3.0))
    child.send(Stop())
    assert events_until_end(child, watch) == [Ended(child, 0)]


def test_telling_one_that_is_gone_or_does_not_listen_harms_nobody(watch: Watch) -> None:
    child = start("os.kill(os.getpid(), signal.SIGSTOP)")
    for _ in range(10_000):
        child.send(Stop())
    child.kill()
    assert events_until_end(child, watch) == [Ended(child, -signal.SIGKILL)]
    child.kill()


def test_a_program_that_cannot_be_started_is_one_sentence() -> None:
    with pytest.raises(StartError, match="child cannot be started: .*no-such-program"):
        spawn(["/no-such-program"], name="child", launch=lambda fd: b"", environment={})


def test_signals_are_notes() -> None:
    with SignalNotes() as signals:
        watch = Watch(signals)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert set(watch.wait(DEADLINE_S)) == {Signalled(signal.SIGTERM), Signalled(signal.SIGINT)}
        assert watch.wait(0) == []
        watch.close()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ends_are_described_in_words() -> None:
    assert describe_end(3) == "exit status 3"
    assert describe_end(-signal.SIGSEGV) == "killed by SIGSEGV"
    assert describe_end(-64 - 1) == "killed by signal 65"


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
