"""The engine core over real sockets: handshake, outputs per peer, aborts, hostile peers. The model is a fake."""

import time

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.codec import decode_from_engine, encode
from protocol.errors import PeerError
from protocol.messages import (
    PROTOCOL_VERSION,
    Abort,
    Finish,
    Heartbeat,
    Hello,
    RequestFailed,
    StepOutput,
    Submit,
)
from protocol.sampling import Sampling
from tests.helpers.core_bench import EPOCH, Engine, Peer, expected


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
        [encode(Abort(seq=2, epoch=EPOCH + 1, numbers=[0]))],
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
