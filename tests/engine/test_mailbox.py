"""What a mailbox does with peers that stop reading, go, flood, lie about themselves or speak another version."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from engine.mailbox import Mailbox, Peer
from protocol.codec import decode_from_engine, encode
from protocol.messages import PROTOCOL_VERSION, Abort, EngineReady, Heartbeat, Hello, ModelFacts, Submit, Welcome
from protocol.sockets import bind_router, connect_dealer, new_identity
from tests.helpers.fake_router import FakeRouter

EPOCH = 5
WELCOME = Welcome(
    seq=0,
    epoch=EPOCH,
    version=PROTOCOL_VERSION,
    model=ModelFacts(architecture="", vocab_size=10, eos_token_ids=(), max_position=10),
    tokenizer_dir="",
)
READY = EngineReady(
    seq=0,
    epoch=EPOCH,
    num_blocks=1,
    block_size=1,
    max_model_len=1,
    max_num_seqs=1,
    max_num_queued_reqs=1,
    max_num_queued_tokens=1,
    max_logprobs=1,
    prefix_caching=True,
    hash_key=b"k",
    dtype="",
    device="",
)
BEAT = Heartbeat(seq=0, epoch=EPOCH, step=0, num_running=0, num_waiting=0, num_waiting_tokens=0, num_blocks_used=0)
HELLO = Hello(seq=0, version=PROTOCOL_VERSION, place=0, life=1)


class Box:
    """A mailbox over a fake router, and what it told the core."""

    def __init__(self, *, ready: bool = True) -> None:
        self.router = FakeRouter()
        self.ended: list[Peer] = []
        self.handled: list[Submit | Abort] = []
        self.mailbox = Mailbox(
            self.router,  # type: ignore[arg-type]  # as much of a socket as a mailbox needs
            epoch=EPOCH,
            welcome=WELCOME,
            on_peer_end=self.ended.append,
        )
        if ready:
            self.mailbox.announce_ready(READY)

    def greet(self, identity: bytes | None = None) -> bytes:
        identity = identity or new_identity(0)
        self.router.push(identity, encode(HELLO))
        self.take()
        return identity

    def take(self) -> None:
        self.mailbox.take(lambda _, message: self.handled.append(message))

    def answers(self, identity: bytes) -> list[str]:
        return [type(decode_from_engine(frames)[0]).__name__ for frames in self.router.take(identity)]


def test_hello_is_answered_twice_and_the_second_time_when_ready() -> None:
    box = Box(ready=False)
    identity = box.greet()
    assert box.answers(identity) == ["Welcome"]
    box.mailbox.announce_ready(READY)
    assert box.answers(identity) == ["EngineReady"]
    assert box.answers(box.greet()) == ["Welcome", "EngineReady"]


@pytest.mark.parametrize("refusal", ["gone", "stuck"])
def test_a_peer_that_takes_nothing_is_ended_alone_and_told_once(refusal: str) -> None:
    box = Box()
    bad, good = box.greet(), box.greet()
    getattr(box.router, refusal).add(bad)
    for _ in range(3):
        for peer in list(box.mailbox.peers.values()):
            box.mailbox.send(peer, BEAT)
    assert [peer.identity for peer in box.ended] == [bad]
    assert box.mailbox.num_ended == 1
    assert box.answers(good) == ["Welcome", "EngineReady", *["Heartbeat"] * 3]


def test_an_identity_is_not_used_twice() -> None:
    box = Box()
    identity = box.greet()
    box.router.push(identity, b"garbage")
    box.take()
    box.answers(identity)
    box.greet(identity)
    assert box.answers(identity) == []
    assert not box.mailbox.peers
    assert box.mailbox.num_ended == 1


def test_a_second_hello_ends_the_peer() -> None:
    box = Box()
    box.greet(box.greet())
    assert box.mailbox.num_ended == 1
    assert not box.mailbox.peers


@pytest.mark.parametrize("identity", [b"", b"H", b"X" * 11, b"H" * 12])
def test_an_identity_that_nobody_made_is_a_strangers(identity: bytes) -> None:
    box = Box()
    box.router.push(identity, encode(HELLO))
    box.take()
    assert not box.mailbox.peers
    assert box.mailbox.num_ended == 0


def test_another_version_is_told_ours_before_it_is_ended() -> None:
    box = Box()
    identity = new_identity(0)
    box.router.push(identity, encode(Hello(seq=0, version=PROTOCOL_VERSION + 1, place=0, life=1)))
    box.take()
    assert box.answers(identity) == ["Welcome"]
    assert not box.mailbox.peers


@pytest.mark.parametrize("message", [Abort(seq=1, epoch=EPOCH, numbers=[0]), Abort(seq=1, epoch=EPOCH, numbers=[])])
def test_nothing_is_asked_before_the_engine_is_ready(message: Abort) -> None:
    box = Box(ready=False)
    identity = box.greet()
    box.router.push(identity, encode(message))
    box.take()
    assert not box.handled
    assert box.mailbox.num_ended == 1


def test_what_is_for_another_epoch_ends_the_peer() -> None:
    box = Box()
    identity = box.greet()
    box.router.push(identity, encode(Abort(seq=1, epoch=EPOCH + 1, numbers=[0])))
    box.take()
    assert not box.handled
    assert box.mailbox.num_ended == 1


def test_a_flood_does_not_hold_up_the_batch() -> None:
    box = Box()
    identity = box.greet()
    for seq in range(1, 1001):
        box.router.push(identity, encode(Abort(seq=seq, epoch=EPOCH, numbers=[])))
    handled = 0

    def slowly(_: Peer, __: Submit | Abort) -> None:
        nonlocal handled
        handled += 1
        time.sleep(0.001)

    box.mailbox.take(slowly)
    assert 0 < handled < 100
    while box.router.inbox:
        box.take()
    assert handled + len(box.handled) == 1000


def test_garbage_of_strangers_is_not_remembered() -> None:
    box = Box()
    for _ in range(5000):
        box.router.push(new_identity(1), b"\xc1")
    while box.router.inbox:
        box.take()
    assert not box.mailbox.peers
    assert not box.mailbox._by_identity
    assert not box.mailbox._ended


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


def test_a_peer_that_stops_reading_is_ended_by_a_real_socket(
    context: zmq.Context[zmq.Socket[bytes]], tmp_path: Path
) -> None:
    address = f"ipc://{tmp_path}/e.sock"
    router = bind_router(context, address)
    ended: list[Peer] = []
    mailbox = Mailbox(router, epoch=EPOCH, welcome=WELCOME, on_peer_end=ended.append)
    mailbox.announce_ready(READY)
    deaf, listening = (connect_dealer(context, address, place) for place in range(2))
    for dealer in (deaf, listening):
        dealer.send(encode(HELLO))
    deadline = time.monotonic() + 5
    while len(mailbox.peers) < 2:
        assert time.monotonic() < deadline
        mailbox.take(lambda *_: None)
    num_sent = 0
    while not ended:
        assert num_sent < 100_000
        for peer in list(mailbox.peers.values()):
            mailbox.send(peer, BEAT)
        num_sent += 1
        while listening.poll(0):
            listening.recv_multipart()
    assert [peer.place for peer in ended] == [0]
    assert [peer.place for peer in mailbox.peers.values()] == [1]
    mailbox.send(next(iter(mailbox.peers.values())), BEAT)
    assert listening.poll(1000)
    for socket in (router, deaf, listening):
        socket.close(linger=0)
