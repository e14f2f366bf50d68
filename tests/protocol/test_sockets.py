"""What the design found out by trying, held fast: identities, a dead peer is noticed, a stuck one does not block."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest
import zmq

from protocol.address import MAX_IPC_PATH_BYTES, engine_address
from protocol.errors import PeerError
from protocol.sockets import HIGH_WATER_MARK, bind_router, connect_dealer, new_identity, place_of


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def address() -> str:
    return engine_address(Path(mkdtemp(prefix="headrace-")), 0, 7)


def test_an_identity_tells_its_place_and_is_never_made_twice() -> None:
    identities = {new_identity(place) for place in (0, 3, 65_535) for _ in range(100)}
    assert len(identities) == 300
    assert {place_of(identity) for identity in identities} == {0, 3, 65_535}


@pytest.mark.parametrize("identity", [b"", b"\x00abcd", b"X" + bytes(10), b"H" + bytes(9), b"H" + bytes(11)])
def test_an_identity_that_we_did_not_make_is_refused(identity: bytes) -> None:
    with pytest.raises(PeerError, match="identity"):
        place_of(identity)


def test_an_address_that_no_socket_can_have_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="TMPDIR"):
        engine_address(Path("/" + "x" * MAX_IPC_PATH_BYTES), 0, 7)


def test_a_send_to_a_peer_that_is_gone_is_an_error(context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
    router = bind_router(context, address)
    dealer = connect_dealer(context, address, 0)
    dealer.send(b"hello")
    assert router.poll(5000)
    identity, _ = router.recv_multipart()
    dealer.close(linger=0)
    with pytest.raises(zmq.ZMQError) as caught:
        for _ in range(5000):
            router.send_multipart([identity, b"x"], zmq.NOBLOCK)
            router.poll(1)
    assert caught.value.errno == zmq.EHOSTUNREACH
    router.close()


def test_a_send_to_an_engine_that_is_not_there_ends_at_the_mark(
    context: zmq.Context[zmq.Socket[bytes]], address: str
) -> None:
    dealer = connect_dealer(context, address, 0)
    for _ in range(HIGH_WATER_MARK):
        dealer.send(b"x", zmq.NOBLOCK)
    with pytest.raises(zmq.Again):
        dealer.send(b"x", zmq.NOBLOCK)
    dealer.close()
