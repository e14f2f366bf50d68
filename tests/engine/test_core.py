"""The engine core over real sockets: handshake, outputs per peer, aborts, hostile peers. The model is a fake."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.config import EnginePlan
from engine.core import EngineCore
from engine.mailbox import Mailbox
from protocol.codec import decode_from_engine, encode, float32s, int32s, int64s
from protocol.errors import PeerError
from protocol.launch import EngineConfig, ModelFiles
from protocol.messages import (
    PROTOCOL_VERSION,
    Abort,
    EngineReady,
    Finish,
    FromEngine,
    Heartbeat,
    Hello,
    ModelFacts,
    RequestFailed,
    StepLogprobs,
    StepOutput,
    Submit,
    Welcome,
)
from protocol.sampling import Sampling
from protocol.scoreboard import Scoreboard
from protocol.sockets import bind_router, connect_dealer
from tests.helpers.fake_runner import FakeRunner, token_at

VOCAB = 500
EPOCH = 77
DEADLINE_MS = 5000


class Engine:
    """An engine core in a thread of this process."""

    def __init__(self, folder: Path, *, depth: int) -> None:
        self.address = f"ipc://{folder / 'e.sock'}"
        plan = EnginePlan(
            device="cpu",
            dtype="float32",
            max_model_len=512,
            block_size=4,
            num_blocks=400,
            max_num_seqs=16,
            max_num_batched_tokens=64,
            vocab_size=VOCAB,
        )
        board = Scoreboard.create(num_api_servers=0, num_engines=1)
        config = EngineConfig(
            rank=0,
            epoch=EPOCH,
            address=self.address,
            hash_key=b"k",
            model=ModelFiles(name="m", config_dir="", weights=""),
            supervisor_pid=0,
            control_fd=0,
            scoreboard_fd=board.fd,
            max_num_queued_reqs=40,
        )
        facts = ModelFacts(architecture="Fake", vocab_size=VOCAB, eos_token_ids=(), max_position=512)
        welcome = Welcome(seq=0, epoch=EPOCH, version=PROTOCOL_VERSION, model=facts, tokenizer_dir="/t")
        self.context = zmq.Context()
        self.mailbox = Mailbox(
            bind_router(self.context, self.address), epoch=EPOCH, welcome=welcome, on_peer_end=lambda _: None
        )
        runner = FakeRunner(plan, depth=depth)
        self.core = EngineCore(config, plan, runner, self.mailbox, board.engine_row(0), eos_ids=())
        self.mailbox.on_peer_end = self.core.end_peer
        self.mailbox.announce_ready(
            EngineReady(
                seq=0,
                epoch=EPOCH,
                num_blocks=400,
                block_size=4,
                max_model_len=512,
                max_num_seqs=16,
                max_num_queued_reqs=40,
                max_num_queued_tokens=1000,
                max_logprobs=20,
                prefix_caching=True,
                hash_key=b"k",
                dtype="float32",
                device="cpu",
            )
        )
        self._stop = threading.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self.core.step()
                self.core.scheduler.check()
                if self.core.is_idle:
                    self.mailbox.router.poll(5)
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.context.destroy(linger=0)

    def wait_until_empty(self) -> None:
        deadline = time.monotonic() + 5
        core = self.core
        while not (core.is_idle and core.scheduler.pool.num_held == 0):
            assert time.monotonic() < deadline, "rows, slots or blocks are left over"
            time.sleep(0.005)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(10)
        assert not self._thread.is_alive()
        assert self.error is None


class Peer:
    """One API server's end, with its own idea of the rows that it submitted."""

    def __init__(self, engine: Engine, place: int = 0) -> None:
        self.context = zmq.Context()
        self.socket = connect_dealer(self.context, engine.address, place)
        self.seq = 0
        self.tokens: dict[int, list[int]] = {}
        self.finishes: dict[int, Finish] = {}
        self.failed: dict[int, RequestFailed] = {}
        self.logprobs: dict[int, list[tuple[float, list[int]]]] = {}

    def greet(self) -> "Peer":
        self.send(Hello(seq=0, version=PROTOCOL_VERSION, place=0, life=1))
        assert isinstance(self.receive()[0], Welcome)
        assert isinstance(self.receive()[0], EngineReady)
        return self

    def send(self, message: Hello | Submit | Abort) -> None:
        self.socket.send(encode(msgspec.structs.replace(message, seq=self.seq)))
        self.seq += 1

    def submit(self, number: int, *, prompt: list[int], max_tokens: int, num_choices: int = 1, **sampling: int) -> None:
        self.send(
            Submit(
                seq=0,
                epoch=EPOCH,
                number=number,
                num_choices=num_choices,
                prompt=np.array(prompt, np.int32).tobytes(),
                sampling=Sampling(seed=number, max_tokens=max_tokens, **sampling),  # type: ignore[arg-type]  # by name
            )
        )

    def receive(self) -> tuple[FromEngine, StepLogprobs | None]:
        assert self.socket.poll(DEADLINE_MS), "nothing came"
        return decode_from_engine(self.socket.recv_multipart())

    def run(self, *, until_ended: int) -> None:
        while len(self.finishes) + len(self.failed) < until_ended:
            message, logprobs = self.receive()
            if isinstance(message, StepOutput):
                self._take(message, logprobs)
            elif isinstance(message, RequestFailed):
                for number in range(message.number, message.number + message.num_rows):
                    self.failed[number] = message

    def _take(self, message: StepOutput, logprobs: StepLogprobs | None) -> None:
        numbers = int64s(message.rows).tolist()
        for number, token, finish in zip(numbers, int32s(message.tokens), message.finishes, strict=True):
            assert number not in self.finishes
            if finish != Finish.ABORT:
                self.tokens.setdefault(number, []).append(token)
            if finish:
                self.finishes[number] = Finish(finish)
        if logprobs is not None:
            widths, position = int32s(logprobs.widths), 0
            for index, value, width in zip(int32s(logprobs.index), float32s(logprobs.logprobs), widths, strict=True):
                top = int32s(logprobs.top_ids)[position : position + width].tolist()
                self.logprobs.setdefault(numbers[index], []).append((value, top))
                position += width

    def close(self) -> None:
        self.context.destroy(linger=0)


@pytest.fixture(params=[0, 1], ids=["depth0", "depth1"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    running = Engine(tmp_path, depth=request.param)
    yield running
    running.close()


@pytest.fixture
def peer(engine: Engine) -> Iterator[Peer]:
    greeted = Peer(engine).greet()
    yield greeted
    greeted.close()


def expected(number: int, prompt_len: int, count: int) -> list[int]:
    return [token_at(number, prompt_len + i, VOCAB) for i in range(count)]


def test_rows_of_two_peers_each_reach_their_own(engine: Engine, peer: Peer) -> None:
    other = Peer(engine, place=1).greet()
    for number in range(12):  # the same numbers: they are each peer's own
        peer.submit(number, prompt=[1] * (number + 1), max_tokens=5 + number)
        other.submit(number, prompt=[2] * (number + 3), max_tokens=20 - number)
    peer.run(until_ended=12)
    other.run(until_ended=12)
    for number in range(12):
        assert peer.tokens[number] == expected(number, number + 1, 5 + number)
        assert other.tokens[number] == expected(number, number + 3, 20 - number)
    other.close()
    engine.wait_until_empty()


def test_logprobs_follow_the_rows_that_asked(engine: Engine, peer: Peer) -> None:
    peer.submit(0, prompt=[1], max_tokens=4)
    peer.submit(1, prompt=[1], max_tokens=4, logprobs=1)
    peer.submit(2, prompt=[1], max_tokens=4, logprobs=0)
    peer.run(until_ended=3)
    assert 0 not in peer.logprobs
    assert peer.logprobs[1] == [(-float(token), [token]) for token in peer.tokens[1]]
    assert peer.logprobs[2] == [(-float(token), []) for token in peer.tokens[2]]


def test_an_abort_is_answered_once_and_frees_everything(engine: Engine, peer: Peer) -> None:
    peer.submit(0, prompt=[1] * 9, max_tokens=400, num_choices=3)
    peer.submit(5, prompt=[1], max_tokens=3)
    peer.run(until_ended=1)
    peer.send(Abort(seq=0, epoch=EPOCH, numbers=[0, 1, 2, 5, 99]))
    peer.run(until_ended=4)
    assert {peer.finishes[number] for number in range(3)} == {Finish.ABORT}
    assert peer.finishes[5] is Finish.LENGTH
    engine.wait_until_empty()


def test_choices_get_their_own_seeds(engine: Engine, peer: Peer) -> None:
    peer.submit(10, prompt=[3] * 10, max_tokens=6, num_choices=3)
    peer.run(until_ended=3)
    assert [peer.tokens[n] for n in (10, 11, 12)] == [expected(n, 10, 6) for n in (10, 11, 12)]


def test_a_full_queue_refuses_all_choices_or_none(engine: Engine, peer: Peer) -> None:
    for number in range(0, 200, 10):
        peer.submit(number, prompt=[1], max_tokens=100, num_choices=10)
    deadline = time.monotonic() + 5
    while not peer.failed:
        assert time.monotonic() < deadline
        message, logprobs = peer.receive()
        if isinstance(message, RequestFailed):
            assert (message.code, message.num_rows) == ("overloaded", 10)
            assert message.retry_after_s is not None
            peer.failed[message.number] = message
        elif isinstance(message, StepOutput):
            peer._take(message, logprobs)


def test_a_silent_peer_hears_a_heartbeat(engine: Engine, peer: Peer) -> None:
    started = time.monotonic()
    assert isinstance(peer.receive()[0], Heartbeat)
    assert isinstance(peer.receive()[0], Heartbeat)
    assert time.monotonic() - started < 2


def test_a_peer_that_goes_is_ended_and_its_rows_go_back(engine: Engine, peer: Peer) -> None:
    peer.submit(0, prompt=[1] * 30, max_tokens=480)
    peer.receive()
    peer.close()
    engine.wait_until_empty()
    assert engine.mailbox.num_ended == 1


@pytest.mark.parametrize(
    "frames",
    [
        [b""],
        [b"\x00" * 100],
        [b"\xc1garbage"],
        [msgspec.msgpack.encode({"type": "no_such_message", "seq": 1})],
        [encode(Hello(seq=7, version=PROTOCOL_VERSION, place=0, life=1))],
        [encode(Abort(seq=9, epoch=EPOCH, numbers=[0]))],
        [encode(Abort(seq=1, epoch=EPOCH + 1, numbers=[0]))],
        [b"a", b"b", b"c", b"d", b"e"],
    ],
)
def test_a_peer_that_breaks_a_rule_is_ended_alone(engine: Engine, peer: Peer, frames: list[bytes]) -> None:
    bad = Peer(engine, place=3).greet()
    bad.submit(0, prompt=[1], max_tokens=400)
    peer.submit(0, prompt=[1], max_tokens=400)
    bad.socket.send_multipart(frames)
    peer.run(until_ended=1)
    assert peer.tokens[0] == expected(0, 1, 400)
    assert engine.mailbox.num_ended == 1
    engine.wait_until_empty()
    bad.submit(1, prompt=[1], max_tokens=1)  # later frames of an ended peer are thrown away
    peer.submit(1, prompt=[1], max_tokens=1)
    peer.run(until_ended=2)
    assert engine.mailbox.num_ended == 1
    bad.close()


def test_a_new_socket_replays_what_the_old_one_lost(engine: Engine, peer: Peer) -> None:
    peer.submit(0, prompt=[1, 2, 3], max_tokens=60)
    while len(peer.tokens.get(0, [])) < 5:
        message, logprobs = peer.receive()
        if isinstance(message, StepOutput):
            peer._take(message, logprobs)
    peer.close()
    again = Peer(engine).greet()
    again.send(
        Submit(
            seq=0,
            epoch=EPOCH,
            number=0,
            attempt=1,
            prompt=np.array([1, 2, 3], np.int32).tobytes(),
            outputs=np.array(peer.tokens[0], np.int32).tobytes(),
            sampling=Sampling(seed=0, max_tokens=60),
        )
    )
    again.run(until_ended=1)
    assert peer.tokens[0] + again.tokens[0] == expected(0, 3, 60)
    again.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames=st.lists(st.binary(max_size=40), min_size=1, max_size=6), greet=st.booleans())
def test_garbage_never_harms_the_engine(engine: Engine, peer: Peer, frames: list[bytes], greet: bool) -> None:
    stranger = Peer(engine, place=9)
    if greet:
        stranger.greet()
    stranger.socket.send_multipart(frames)
    stranger.close()
    peer.tokens.clear()
    peer.finishes.clear()
    peer.submit(1, prompt=[1], max_tokens=2)
    peer.run(until_ended=1)
    assert peer.tokens[1] == expected(1, 1, 2)


def test_a_submit_before_hello_is_thrown_away(engine: Engine, peer: Peer) -> None:
    stranger = Peer(engine, place=2)
    stranger.submit(0, prompt=[1], max_tokens=1)
    peer.submit(0, prompt=[1], max_tokens=1)
    peer.run(until_ended=1)
    assert not stranger.socket.poll(300)
    stranger.close()


def test_a_second_submit_of_a_row_ends_the_peer(engine: Engine) -> None:
    peer = Peer(engine).greet()
    peer.submit(0, prompt=[1], max_tokens=400)
    peer.submit(0, prompt=[1], max_tokens=400)
    engine.wait_until_empty()
    deadline = time.monotonic() + 5
    while engine.mailbox.num_ended == 0:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    peer.close()


def test_decoding_checks_that_arrays_are_parallel() -> None:
    bad = StepOutput(seq=0, epoch=1, step=1, rows=b"\0" * 8, tokens=b"", finishes=b"\0")
    with pytest.raises(PeerError, match="parallel"):
        decode_from_engine([encode(bad)])
