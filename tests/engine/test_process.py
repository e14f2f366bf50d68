"""An engine core as a process: what it says while it loads, how it stops, and how it ends when something breaks."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq

from protocol.codec import decode_from_engine, encode
from protocol.launch import EngineConfig, ModelFiles
from protocol.messages import PROTOCOL_VERSION, EngineReady, FromEngine, Heartbeat, Hello, Submit, Welcome
from protocol.process import (
    CannotStart,
    ExitStatus,
    FromChild,
    PhaseDone,
    Ready,
    Stop,
    control_pair,
    receive_from_child,
    send_control,
)
from protocol.sampling import Sampling
from protocol.scoreboard import Scoreboard, State
from protocol.sockets import connect_dealer
from tests.helpers.odd_engine import BREAKS

EPOCH = 2**64 - 1
ROOT = Path(__file__).resolve().parents[2]
MODEL = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "eos_token_id": 2,
}


class EngineProcess:
    """Started here as a supervisor would, with one API server's socket."""

    def __init__(self, folder: Path, mode: str, *, model: dict[str, object] = MODEL, **settings: int) -> None:
        (folder / "config.json").write_text(json.dumps(model))
        self.board = Scoreboard.create(num_api_servers=0, num_engines=1)
        self.row = self.board.engine_row(0)
        self.board.set_current(1, EPOCH)
        self.control, theirs = control_pair()
        self.control.settimeout(15)
        self.address = f"ipc://{folder}/e.sock"
        config = EngineConfig(
            rank=0,
            epoch=EPOCH,
            address=self.address,
            hash_key=b"k",
            model=ModelFiles(name="m", config_dir=str(folder), weights=str(folder)),
            supervisor_pid=os.getpid(),
            control_fd=theirs.fileno(),
            scoreboard_fd=self.board.fd,
            **settings,  # type: ignore[arg-type]  # by keyword
        )
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.helpers.odd_engine", mode],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=(theirs.fileno(), self.board.fd),
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(config))
        self.process.stdin.close()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._dealer: zmq.Socket[bytes] | None = None

    def __enter__(self) -> "EngineProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        self.control.close()
        self.context.destroy(linger=0)
        os.close(self.board.fd)

    def say(self) -> FromChild | None:
        """The next thing that it says over its control channel."""
        return receive_from_child(self.control)

    def until_ready(self) -> None:
        while not isinstance(self.say(), Ready):
            pass

    def end(self) -> tuple[int, str]:
        """(exit status, standard error), once it has ended by itself."""
        assert self.process.stderr is not None
        status = self.process.wait(10)
        return status, self.process.stderr.read().decode()

    @property
    def dealer(self) -> zmq.Socket[bytes]:
        """Connected and greeted."""
        if self._dealer is None:
            self._dealer = connect_dealer(self.context, self.address, 0)
            self._dealer.send(encode(Hello(seq=0, version=PROTOCOL_VERSION, place=0, life=1)))
        return self._dealer

    def hear(self) -> FromEngine:
        """The next message."""
        assert self.dealer.poll(10_000), "nothing came"
        return decode_from_engine(self.dealer.recv_multipart())[0]

    def submit(self, number: int, seq: int) -> None:
        prompt = np.array([1, 2, 3], np.int32).tobytes()
        sampling = Sampling(seed=1, max_tokens=40)
        self.dealer.send(encode(Submit(seq=seq, epoch=EPOCH, number=number, prompt=prompt, sampling=sampling)))


@pytest.fixture
def ready(tmp_path: Path) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path, "loads=0") as engine:
        engine.until_ready()
        yield engine


def test_its_heart_beats_while_it_loads(tmp_path: Path) -> None:
    with EngineProcess(tmp_path, "loads=1.5") as engine:
        assert isinstance(engine.hear(), Welcome)
        beats = 0
        while isinstance(message := engine.hear(), Heartbeat):
            beats += 1
            assert engine.row.get("state") == State.STARTING
            assert engine.board.is_live(engine.row)
        assert isinstance(message, EngineReady)
        assert beats >= 3
        engine.until_ready()
        assert engine.row.get("state") == State.READY


def test_the_board_beats_while_it_loads_and_nobody_listens(tmp_path: Path) -> None:
    with EngineProcess(tmp_path, "loads=1.5") as engine:
        deadline = time.monotonic() + 10
        seen: set[int] = set()
        while engine.row.get("state") != State.READY:
            assert time.monotonic() < deadline
            seen.add(engine.row.get("heartbeat_ns"))
            time.sleep(0.01)
        assert len(seen) >= 4


def test_stop_ends_it_in_order(ready: EngineProcess) -> None:
    ready.submit(0, 1)
    assert isinstance(ready.hear(), Welcome)
    send_control(ready.control, Stop())
    status, log = ready.end()
    assert status == ExitStatus.OK
    assert "Traceback" not in log
    assert ready.row.get("state") == State.ENDED


def test_the_end_of_its_supervisor_is_its_own(ready: EngineProcess) -> None:
    ready.control.close()
    assert ready.end()[0] == ExitStatus.OK


def test_messages_that_its_supervisor_never_read_do_not_make_its_end_an_error(tmp_path: Path) -> None:
    with EngineProcess(tmp_path, "loads=0.2") as engine:
        while engine.row.get("state") != State.READY:
            time.sleep(0.01)
        engine.hear()
        engine.control.close()  # with `Ready` unread
        status, log = engine.end()
        assert "Traceback" not in log
        assert status == ExitStatus.OK


@pytest.mark.parametrize("after_s", [0.0, 0.3, 1.0])
def test_stop_while_torch_is_imported(tmp_path: Path, after_s: float) -> None:
    with EngineProcess(tmp_path, "imports-torch") as engine:
        said = engine.say()
        assert isinstance(said, PhaseDone), engine.end()
        time.sleep(after_s)
        send_control(engine.control, Stop())
        began = time.monotonic()
        status, log = engine.end()
        assert status == ExitStatus.OK, log
        assert time.monotonic() - began < 3


def test_a_step_that_raises_ends_it_with_the_traceback(tmp_path: Path) -> None:
    with EngineProcess(tmp_path, "breaks") as engine:
        engine.until_ready()
        assert isinstance(engine.hear(), Welcome)
        engine.submit(0, 1)
        status, log = engine.end()
        assert status not in (ExitStatus.OK, *ExitStatus)
        assert f"RuntimeError: {BREAKS}" in log
        assert engine.row.get("state") == State.ENDED


def test_what_is_wrong_with_the_model_is_one_sentence(tmp_path: Path) -> None:
    with EngineProcess(tmp_path, "loads=0", model={**MODEL, "architectures": ["Nobody" * 20_000]}) as engine:
        said = engine.say()
        assert isinstance(said, CannotStart)
        assert said.status == ExitStatus.CANNOT_START
        assert "Nobody" in said.sentence
        assert engine.say() is None
        status, log = engine.end()
        assert status == ExitStatus.CANNOT_START
        assert "Traceback" not in log


def test_a_step_of_seconds_is_no_silence_for_those_who_know_when_it_beat(tmp_path: Path) -> None:
    with EngineProcess(tmp_path, "long=2") as engine:
        engine.until_ready()
        assert isinstance(engine.hear(), Welcome)
        engine.submit(0, 1)
        time.sleep(1.0)
        beaten_at = engine.row.get("heartbeat_ns")
        time.sleep(0.5)
        assert engine.row.get("heartbeat_ns") == beaten_at
        assert engine.process.poll() is None


def test_signals_are_not_for_it(ready: EngineProcess) -> None:
    for number in (2, 15):
        ready.process.send_signal(number)
    ready.submit(0, 1)
    assert isinstance(ready.hear(), Welcome)
    assert ready.process.poll() is None


def test_it_holds_only_its_own_end_of_the_channel(ready: EngineProcess) -> None:
    ready.control.shutdown(socket.SHUT_RDWR)
    assert ready.end()[0] == ExitStatus.OK


def test_settings_whose_messages_would_be_cut_off_are_refused(tmp_path: Path) -> None:
    with EngineProcess(tmp_path, "loads=0", max_num_seqs=4096, max_logprobs=1024) as engine:
        said = engine.say()
        assert isinstance(said, CannotStart)
        assert "--max-num-seqs 4096 and --max-logprobs 1024" in said.sentence
